//! What starts by itself later, without the agent and without its tag: changes there need the
//! privilege `persistence`. Reading is harmless. An entry that ends in `/**` is
//! what is named and, if that is a directory, everything below it.

/// Below a home directory: name, path, why.
pub const IN_HOMES: [(&str, &str, &str); 25] = [
    ("shell", ".profile", "runs at the next login"),
    ("shell", ".bashrc", "runs with the next shell"),
    ("shell", ".bash_profile", "runs at the next login"),
    ("shell", ".bash_login", "runs at the next login"),
    ("shell", ".bash_logout", "runs at the end of a login"),
    ("shell", ".bash_aliases", "runs with the next shell"),
    ("shell", ".zshrc", "runs with the next shell"),
    ("shell", ".zshenv", "runs with the next shell or script"),
    ("shell", ".zprofile", "runs at the next login"),
    ("shell", ".zlogin", "runs at the next login"),
    ("shell", ".config/fish/**", "runs with the next shell"),
    ("shell", ".cshrc", "runs with the next shell"),
    ("shell", ".tcshrc", "runs with the next shell"),
    ("shell", ".kshrc", "runs with the next shell"),
    (
        "shell",
        ".inputrc",
        "binds keys of the next shell to commands",
    ),
    ("shell", ".pam_environment", "variables of the next login"),
    (
        "systemd",
        ".config/systemd/**",
        "units that the user's manager starts",
    ),
    (
        "systemd",
        ".local/share/systemd/**",
        "units that the user's manager starts",
    ),
    (
        "systemd",
        ".config/environment.d/**",
        "variables of everything that the user's manager starts",
    ),
    (
        "autostart",
        ".config/autostart/**",
        "runs with the next desktop session",
    ),
    (
        "autostart",
        ".local/share/dbus-1/**",
        "services that the session bus starts when asked",
    ),
    (
        "autostart",
        ".xprofile",
        "runs with the next desktop session",
    ),
    (
        "autostart",
        ".xsession",
        "runs with the next desktop session",
    ),
    (
        "git",
        ".gitconfig",
        "names programs that git runs in every work tree",
    ),
    (
        "git",
        ".config/git/**",
        "names programs that git runs in every work tree",
    ),
];

/// On the host: name, pattern, why.
pub const ON_HOST: [(&str, &str, &str); 57] = [
    ("cron", "/etc/cron*/**", "runs at its time, as root"),
    ("cron", "/etc/anacrontab", "runs at its time, as root"),
    (
        "cron",
        "/var/spool/cron/**",
        "runs at its time; also the jobs of at",
    ),
    ("cron", "/var/spool/at/**", "runs at its time"),
    ("cron", "/var/spool/anacron/**", "when jobs ran last"),
    (
        "systemd",
        "/etc/systemd/**",
        "units and settings of the service manager",
    ),
    (
        "systemd",
        "/run/systemd/system*/**",
        "units until the next start",
    ),
    (
        "systemd",
        "/run/systemd/user*/**",
        "units until the next start",
    ),
    (
        "systemd",
        "/run/systemd/generator*/**",
        "units until the next start",
    ),
    (
        "systemd",
        "/run/systemd/transient/**",
        "units until the next start",
    ),
    ("systemd", "/usr/lib/systemd/**", "units of packages"),
    ("systemd", "/lib/systemd/**", "units of packages"),
    (
        "systemd",
        "/usr/local/lib/systemd/**",
        "units of the administrator",
    ),
    ("systemd", "/etc/init.d/**", "runs at the next start"),
    ("systemd", "/etc/rc*/**", "runs at the next start"),
    ("systemd", "/etc/inittab", "runs at the next start"),
    (
        "systemd",
        "/etc/tmpfiles.d/**",
        "makes and removes files at the next start",
    ),
    (
        "systemd",
        "/usr/lib/tmpfiles.d/**",
        "makes and removes files at the next start",
    ),
    (
        "dbus",
        "/etc/dbus-1/**",
        "who may ask which service of the bus",
    ),
    (
        "dbus",
        "/usr/share/dbus-1/**",
        "services that the bus starts when asked",
    ),
    (
        "dbus",
        "/etc/polkit-1/**",
        "who may do what without a password",
    ),
    (
        "dbus",
        "/usr/share/polkit-1/**",
        "who may do what without a password",
    ),
    ("shell", "/etc/profile", "runs at everybody's next login"),
    (
        "shell",
        "/etc/profile.d/**",
        "runs at everybody's next login",
    ),
    (
        "shell",
        "/etc/bash.bashrc",
        "runs with everybody's next shell",
    ),
    ("shell", "/etc/bashrc", "runs with everybody's next shell"),
    ("shell", "/etc/zsh*/**", "runs with everybody's next shell"),
    ("shell", "/etc/fish/**", "runs with everybody's next shell"),
    ("shell", "/etc/csh*/**", "runs with everybody's next shell"),
    (
        "shell",
        "/etc/environment",
        "variables of everybody's next login",
    ),
    (
        "shell",
        "/etc/update-motd.d/**",
        "runs as root at everybody's next login",
    ),
    ("loader", "/etc/ld.so.preload", "loaded into every program"),
    (
        "loader",
        "/etc/ld.so.conf",
        "where every program looks for its libraries",
    ),
    (
        "loader",
        "/etc/ld.so.conf.d/**",
        "where every program looks for its libraries",
    ),
    (
        "login",
        "/etc/pam.conf",
        "decides who gets in, and loads libraries for it",
    ),
    (
        "login",
        "/etc/pam.d/**",
        "decides who gets in, and loads libraries for it",
    ),
    (
        "login",
        "/etc/security/**",
        "decides who gets in, and with which rights",
    ),
    ("login", "/etc/passwd", "an account is a way back in"),
    ("login", "/etc/group", "a group is a right"),
    (
        "login",
        "/etc/ssh/sshd_config",
        "decides who gets in, and runs commands for it",
    ),
    (
        "login",
        "/etc/ssh/sshd_config.d/**",
        "decides who gets in, and runs commands for it",
    ),
    ("login", "/etc/doas.conf", "who may become root"),
    (
        "devices",
        "/etc/udev/**",
        "runs as root when a device comes",
    ),
    (
        "devices",
        "/run/udev/rules.d/**",
        "runs as root when a device comes",
    ),
    (
        "devices",
        "/usr/lib/udev/**",
        "runs as root when a device comes",
    ),
    (
        "modules",
        "/etc/modprobe.d/**",
        "runs when a module is loaded",
    ),
    (
        "modules",
        "/etc/modules*/**",
        "modules that are loaded at the next start",
    ),
    ("modules", "/usr/lib/modules/**", "the modules themselves"),
    (
        "modules",
        "/etc/binfmt.d/**",
        "programs that run in place of others",
    ),
    (
        "modules",
        "/etc/sysctl*/**",
        "kernel settings at the next start",
    ),
    (
        "packages",
        "/etc/apt/apt.conf.d/**",
        "runs as root with the next package",
    ),
    (
        "packages",
        "/etc/dpkg/dpkg.cfg.d/**",
        "runs as root with the next package",
    ),
    (
        "packages",
        "/etc/kernel/**",
        "runs as root with the next kernel",
    ),
    (
        "network",
        "/etc/network/**",
        "runs as root when an interface comes",
    ),
    (
        "network",
        "/etc/NetworkManager/dispatcher.d/**",
        "runs as root when an interface comes",
    ),
    (
        "network",
        "/etc/logrotate.d/**",
        "runs as root when logs are turned",
    ),
    (
        "autostart",
        "/etc/xdg/autostart/**",
        "runs with everybody's next desktop session",
    ),
];
