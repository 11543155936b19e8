# The instances that have a configuration file.
_syncloud_instances() {
  local expl
  local -a names=(/etc/syncloud/*.conf(N:t:r))
  names=(${names:#syncloud})
  _wanted instances expl instance compadd -a names
}
