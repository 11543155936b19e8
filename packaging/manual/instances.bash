# The instances that have a configuration file; the argument is what was typed of the name.
_syncloud_instances() {
  local file name
  for file in /etc/syncloud/*.conf; do
    name=${file##*/}
    name=${name%.conf}
    [[ -e $file && $name != syncloud && $name == "$1"* ]] && echo "$name"
  done
}
