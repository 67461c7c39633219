# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_berrymse_global_optspecs
    string join \n config= last-good= listen= mdns helper= data= slot= wifi= v/verbose h/help V/version
end

function __fish_berrymse_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_berrymse_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_berrymse_using_subcommand
    set -l cmd (__fish_berrymse_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c berrymse -n "__fish_berrymse_needs_command" -l config -d 'Configuration file [default: /boot/berrymse.toml, if it exists]' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l last-good -d 'Copy of the configuration, saved by `apply`, to use if the configuration file is missing or invalid; without this option, the program exits in that case' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l listen -d 'Address to listen on, such as 0.0.0.0:2020 or [::]:80, or only a port; overrides the configuration' -r
complete -c berrymse -n "__fish_berrymse_needs_command" -l helper -d 'Socket of `berrymse root-helper`' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l data -d 'Directory for uploads and for the error message from the last failed update' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l slot -d 'Slot of the running system [default: from the kernel\'s arguments]' -r -f -a "A\t''
B\t''"
complete -c berrymse -n "__fish_berrymse_needs_command" -l wifi -d 'Report file written by `berrymse wifi`' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l mdns -d 'Announce HOSTNAME.local on the local network (mDNS) even if [system] has no hostname'
complete -c berrymse -n "__fish_berrymse_needs_command" -s v -l verbose -d 'Log more; use twice to log everything'
complete -c berrymse -n "__fish_berrymse_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_needs_command" -s V -l version -d 'Print version'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "serve" -d 'Stream the cameras (the default)'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "check" -d 'Check a configuration file'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "cameras" -d 'List the cameras connected to this machine'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "apply" -d 'Set up the appliance at boot'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "root-helper" -d 'Save the configuration and restart the machine on behalf of the server'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "record-cameras" -d 'Save which cameras of a running server have delivered video within the last hour'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "wifi" -d 'Join the configured wireless network, or start an access point if none is configured'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "boot-files" -d 'Update the boot files, if those of the running system are not in use'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "health" -d 'Check whether every camera of a running server is delivering video'
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l config -d 'Configuration file [default: /boot/berrymse.toml, if it exists]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l last-good -d 'Copy of the configuration, saved by `apply`, to use if the configuration file is missing or invalid; without this option, the program exits in that case' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l listen -d 'Address to listen on, such as 0.0.0.0:2020 or [::]:80, or only a port; overrides the configuration' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l helper -d 'Socket of `berrymse root-helper`' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l data -d 'Directory for uploads and for the error message from the last failed update' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l slot -d 'Slot of the running system [default: from the kernel\'s arguments]' -r -f -a "A\t''
B\t''"
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l wifi -d 'Report file written by `berrymse wifi`' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l mdns -d 'Announce HOSTNAME.local on the local network (mDNS) even if [system] has no hostname'
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -s v -l verbose -d 'Log more; use twice to log everything'
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand cameras" -l json -d 'Print JSON'
complete -c berrymse -n "__fish_berrymse_using_subcommand cameras" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -l config -d 'Configuration file [default: boot/berrymse.toml in --root]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -l last-good -d 'Last good copy of the configuration [default: data/berrymse/berrymse.toml in --root]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -l root -d 'Directory to use as / for all files that are written' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l socket -d 'Socket to listen on' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l group -d 'Group that may use the socket, in addition to root' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l config -d 'Configuration file to write' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l last-good -d 'Last good copy of the configuration' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -s h -l help -d 'Print help'
complete -c berrymse -n "__fish_berrymse_using_subcommand record-cameras" -l url -d 'URL of the server [default: the address in the configuration]' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand record-cameras" -l config -d 'Configuration file to read the server\'s address from' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand record-cameras" -l last-good -d 'Copy of the configuration to use if the configuration file is missing or invalid' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand record-cameras" -l data -d 'Directory for persistent data' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand record-cameras" -l slot -d 'Slot of the running system [default: from the kernel\'s arguments]' -r -f -a "A\t''
B\t''"
complete -c berrymse -n "__fish_berrymse_using_subcommand record-cameras" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l config -d 'Configuration file' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l last-good -d 'Copy of the configuration to use if the configuration file is missing or invalid' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l state -d 'File with the name of the last network that was joined' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l report -d 'File to write the report to (JSON)' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -s h -l help -d 'Print help'
complete -c berrymse -n "__fish_berrymse_using_subcommand boot-files" -l root -d 'Directory to use as /' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand boot-files" -s h -l help -d 'Print help'
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l url -d 'URL of the server [default: the address in the configuration]' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l config -d 'Configuration file to read the server\'s address from [default: /boot/berrymse.toml, if it exists]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l last-good -d 'Copy of the configuration to use if the configuration file is missing or invalid' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l since-update -d 'On an appliance, in a system that was just installed, check only the cameras that delivered video in the hour before the update'
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
