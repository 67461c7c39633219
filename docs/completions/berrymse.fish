# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_berrymse_global_optspecs
    string join \n config= last-good= listen= mdns helper= data= wifi= v/verbose h/help V/version
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

complete -c berrymse -n "__fish_berrymse_needs_command" -l config -d 'Configuration file [default: /boot/berrymse.toml, where there is one]' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l last-good -d 'Copy of the configuration that is in force while that file is missing or broken, as `apply` keeps it; without this option, that ends the program' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l listen -d 'Address to listen on, instead of the configuration\'s: 0.0.0.0:2020, [::]:80, or a port' -r
complete -c berrymse -n "__fish_berrymse_needs_command" -l helper -d 'Socket of `berrymse root-helper`, which saves the configuration and restarts the machine' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l data -d 'Where uploads lie until they are installed, and why the last update was given up' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l wifi -d 'What `berrymse wifi` says of the wireless network' -r -F
complete -c berrymse -n "__fish_berrymse_needs_command" -l mdns -d 'Answer in the local network for HOSTNAME.local (mDNS), also where [system] has no hostname'
complete -c berrymse -n "__fish_berrymse_needs_command" -s v -l verbose -d 'Say more in the log; twice: everything'
complete -c berrymse -n "__fish_berrymse_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_needs_command" -s V -l version -d 'Print version'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "serve" -d 'Stream the cameras (the default)'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "check" -d 'Check a configuration file'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "cameras" -d 'List the cameras that are there'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "apply" -d 'Set up the appliance, early at its start'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "root-helper" -d 'Do for the server what only root may do: save the configuration, restart the machine'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "wifi" -d 'Join the appliance\'s wireless network, or open an access point where none is configured'
complete -c berrymse -n "__fish_berrymse_needs_command" -f -a "health" -d 'Ask a running server whether every camera delivers pictures'
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l config -d 'Configuration file [default: /boot/berrymse.toml, where there is one]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l last-good -d 'Copy of the configuration that is in force while that file is missing or broken, as `apply` keeps it; without this option, that ends the program' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l listen -d 'Address to listen on, instead of the configuration\'s: 0.0.0.0:2020, [::]:80, or a port' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l helper -d 'Socket of `berrymse root-helper`, which saves the configuration and restarts the machine' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l data -d 'Where uploads lie until they are installed, and why the last update was given up' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l wifi -d 'What `berrymse wifi` says of the wireless network' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -l mdns -d 'Answer in the local network for HOSTNAME.local (mDNS), also where [system] has no hostname'
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -s v -l verbose -d 'Say more in the log; twice: everything'
complete -c berrymse -n "__fish_berrymse_using_subcommand serve" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand cameras" -l json -d 'As JSON, for programs'
complete -c berrymse -n "__fish_berrymse_using_subcommand cameras" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -l config -d 'Configuration file [default: boot/berrymse.toml in --root]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -l last-good -d 'Where the last good copy is kept [default: data/berrymse/berrymse.toml in --root]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -l root -d 'What counts as / for everything that is written' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand apply" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l socket -d 'Where it is spoken to' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l group -d 'Who may speak to it, beside root' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l config -d 'The configuration that it writes' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -l last-good -d 'Where it keeps the last good copy' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand root-helper" -s h -l help -d 'Print help'
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l config -d 'The configuration' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l last-good -d 'Copy of it that is in force while that file is missing or broken' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l state -d 'Where it is kept which network has worked' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -l report -d 'Where it says how it is doing' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand wifi" -s h -l help -d 'Print help'
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l url -d 'Address to ask; by default the one that the configuration listens on' -r
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l config -d 'Configuration file that says where the server listens [default: /boot/berrymse.toml, where there is one]' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -l last-good -d 'Copy of the configuration that is in force while that file is broken' -r -F
complete -c berrymse -n "__fish_berrymse_using_subcommand health" -s h -l help -d 'Print help (see more with \'--help\')'
