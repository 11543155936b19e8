# The instances that have a configuration file.
function __syncloud_instances
    for file in /etc/syncloud/*.conf
        string replace --regex '^.*/(.*)\.conf$' '$1' -- $file | string match --invert syncloud
    end
end
