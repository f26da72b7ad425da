//! Sockets of services that act for whoever asks, and are not tagged: connecting needs the
//! privilege `handoff`. An entry that ends in
//! `/**` is what is named and, if that is a directory, everything below it.

/// Below a home directory: name, path, why.
pub const IN_HOMES: [(&str, &str, &str); 7] = [
    (
        "ssh-agent",
        ".ssh/**",
        "agents and open connections: signs, and runs commands elsewhere",
    ),
    (
        "gpg-agent",
        ".gnupg/**",
        "signs and decrypts; speaks as an ssh agent",
    ),
    ("docker", ".docker/**", "starts processes"),
    ("docker", ".colima/**", "starts processes"),
    ("docker", ".rd/**", "starts processes"),
    ("docker", ".local/share/containers/**", "starts processes"),
    ("editors", ".emacs.d/**", "runs code in the user's editor"),
];

/// On the host: name, pattern, why.
pub const ON_HOST: [(&str, &str, &str); 33] = [
    (
        "user-services",
        "/run/user/**",
        "the user's bus, service manager, keys, containers, desktop",
    ),
    (
        "systemd",
        "/run/systemd/private",
        "starts processes as root",
    ),
    (
        "systemd",
        "/run/systemd/io.*",
        "asks the service manager and its helpers",
    ),
    (
        "systemd",
        "/run/systemd/machine*/**",
        "opens shells in machines and on the host",
    ),
    (
        "dbus",
        "/run/dbus/**",
        "the system bus: systemd, polkit, NetworkManager, packages",
    ),
    ("dbus", "/tmp/dbus-*/**", "a session bus"),
    ("docker", "/run/docker.sock", "starts processes as root"),
    ("docker", "/run/docker/**", "starts processes as root"),
    (
        "containerd",
        "/run/containerd/**",
        "starts processes as root",
    ),
    ("containerd", "/run/k3s/**", "starts processes as root"),
    ("podman", "/run/podman/**", "starts processes as root"),
    ("crio", "/run/crio/**", "starts processes as root"),
    ("buildkit", "/run/buildkit/**", "starts processes as root"),
    ("snapd", "/run/snapd*/**", "installs programs as root"),
    (
        "libvirt",
        "/run/libvirt/**",
        "starts machines with the host's devices and files",
    ),
    ("lxd", "/var/lib/lxd/**", "starts processes as root"),
    ("lxd", "/var/snap/lxd/**", "starts processes as root"),
    ("lxd", "/var/lib/incus/**", "starts processes as root"),
    ("lxd", "/run/incus/**", "starts processes as root"),
    ("supervisor", "/run/supervisor*/**", "starts processes"),
    ("udev", "/run/udev/**", "changes how devices are handled"),
    (
        "terminals",
        "/tmp/tmux-*/**",
        "types into terminals, starts processes",
    ),
    (
        "terminals",
        "/run/tmux/**",
        "types into terminals, starts processes",
    ),
    (
        "terminals",
        "/run/screen/**",
        "types into terminals, starts processes",
    ),
    (
        "terminals",
        "/tmp/screens/**",
        "types into terminals, starts processes",
    ),
    ("ssh-agent", "/tmp/ssh-*/**", "signs with a person's keys"),
    (
        "desktop",
        "/tmp/.X11-unix/**",
        "types and looks at a person's screen",
    ),
    (
        "desktop",
        "/tmp/.ICE-unix/**",
        "the desktop's session manager",
    ),
    ("desktop", "/run/pcscd/**", "smart cards"),
    ("printing", "/run/cups/**", "runs filters and back ends"),
    (
        "mail",
        "/var/spool/postfix/**",
        "delivers mail, which runs commands",
    ),
    (
        "mail",
        "/run/exim4/**",
        "delivers mail, which runs commands",
    ),
    (
        "network",
        "/run/openvswitch/**",
        "changes the host's network",
    ),
];
