//! Credentials and keys: what whoever has them can do anywhere.

/// Below a home directory: name, path, why.
pub const IN_HOMES: [(&str, &str, &str); 48] = [
    (
        "ssh",
        ".ssh",
        "private keys, and authorized_keys, which is a way back in",
    ),
    ("gpg", ".gnupg", "signing and decryption keys"),
    ("aws", ".aws", "long-lived cloud credentials"),
    ("azure", ".azure", "cloud credentials"),
    ("gcloud", ".config/gcloud", "cloud credentials"),
    ("digitalocean", ".config/doctl", "cloud credentials"),
    ("oci", ".oci", "cloud credentials"),
    (
        "terraform",
        ".terraform.d/credentials.tfrc.json",
        "tokens for infrastructure",
    ),
    (
        "vault",
        ".vault-token",
        "opens the store of all other secrets",
    ),
    ("kube", ".kube", "cluster credentials"),
    ("docker", ".docker/config.json", "registry credentials"),
    (
        "containers",
        ".config/containers/auth.json",
        "registry credentials",
    ),
    (
        "helm",
        ".config/helm/registry/config.json",
        "registry credentials",
    ),
    (
        "npm",
        ".npmrc",
        "publishing tokens: an agent that has one can ship code to others",
    ),
    ("yarn", ".yarnrc.yml", "publishing tokens"),
    ("pypi", ".pypirc", "publishing tokens"),
    ("pip", ".pip/pip.conf", "passwords of package indexes"),
    (
        "pip",
        ".config/pip/pip.conf",
        "passwords of package indexes",
    ),
    ("cargo", ".cargo/credentials.toml", "publishing tokens"),
    (
        "cargo",
        ".cargo/credentials",
        "publishing tokens, in the older place",
    ),
    ("gem", ".gem/credentials", "publishing tokens"),
    (
        "maven",
        ".m2/settings.xml",
        "passwords of package repositories",
    ),
    (
        "gradle",
        ".gradle/gradle.properties",
        "passwords of package repositories, signing keys",
    ),
    ("composer", ".composer/auth.json", "tokens for code hosts"),
    (
        "composer",
        ".config/composer/auth.json",
        "tokens for code hosts",
    ),
    (
        "nuget",
        ".nuget/NuGet/NuGet.Config",
        "passwords of package repositories",
    ),
    ("netrc", ".netrc", "passwords in clear text"),
    ("git", ".git-credentials", "passwords in clear text"),
    ("git", ".config/git/credentials", "passwords in clear text"),
    ("github", ".config/gh", "tokens for code hosts"),
    ("gitlab", ".config/glab-cli", "tokens for code hosts"),
    ("postgres", ".pgpass", "database passwords"),
    ("mysql", ".my.cnf", "database passwords"),
    ("mysql", ".mylogin.cnf", "database passwords"),
    ("pass", ".password-store", "a person's passwords"),
    ("keyrings", ".local/share/keyrings", "a person's passwords"),
    ("kwallet", ".local/share/kwalletd", "a person's passwords"),
    ("firefox", ".mozilla", "session cookies and saved passwords"),
    (
        "firefox",
        "snap/firefox/common/.mozilla",
        "session cookies and saved passwords",
    ),
    (
        "firefox",
        ".var/app/org.mozilla.firefox",
        "session cookies and saved passwords",
    ),
    ("thunderbird", ".thunderbird", "mail and its passwords"),
    (
        "chrome",
        ".config/google-chrome",
        "session cookies and saved passwords",
    ),
    (
        "chromium",
        ".config/chromium",
        "session cookies and saved passwords",
    ),
    (
        "chromium",
        "snap/chromium/common/chromium",
        "session cookies and saved passwords",
    ),
    (
        "brave",
        ".config/BraveSoftware",
        "session cookies and saved passwords",
    ),
    (
        "edge",
        ".config/microsoft-edge",
        "session cookies and saved passwords",
    ),
    (
        "opera",
        ".config/opera",
        "session cookies and saved passwords",
    ),
    (
        "xauthority",
        ".Xauthority",
        "lets its reader type and look into a person's screen",
    ),
];

/// On the host: name, pattern, why.
pub const ON_HOST: [(&str, &str, &str); 23] = [
    (
        "kernel-memory",
        "/proc/kcore",
        "the kernel's memory, and so everybody's",
    ),
    ("shadow", "/etc/shadow", "password hashes"),
    ("shadow", "/etc/shadow-", "password hashes"),
    ("gshadow", "/etc/gshadow", "password hashes"),
    ("gshadow", "/etc/gshadow-", "password hashes"),
    (
        "opasswd",
        "/etc/security/opasswd",
        "hashes of former passwords",
    ),
    ("sudoers", "/etc/sudoers", "who may become root"),
    ("sudoers", "/etc/sudoers.d/**", "who may become root"),
    (
        "ssh-host-keys",
        "/etc/ssh/ssh_host_*_key",
        "keys with which the host proves itself",
    ),
    (
        "tls-keys",
        "/etc/ssl/private/**",
        "keys with which services prove themselves",
    ),
    (
        "letsencrypt",
        "/etc/letsencrypt/archive/**",
        "keys with which services prove themselves",
    ),
    (
        "letsencrypt",
        "/etc/letsencrypt/accounts/**",
        "keys that get certificates in the host's name",
    ),
    (
        "kerberos",
        "/etc/krb5.keytab",
        "keys with which the host and its services prove themselves",
    ),
    ("wireguard", "/etc/wireguard/**", "private keys of tunnels"),
    (
        "networks",
        "/etc/NetworkManager/system-connections/**",
        "passwords of networks and tunnels",
    ),
    (
        "disk-keys",
        "/etc/cryptsetup-keys.d/**",
        "keys of encrypted disks",
    ),
    (
        "machine-credentials",
        "/etc/credstore/**",
        "credentials that systemd hands to services",
    ),
    (
        "machine-credentials",
        "/etc/credstore.encrypted/**",
        "credentials that systemd hands to services",
    ),
    (
        "machine-credentials",
        "/run/credentials/**",
        "credentials that systemd handed to services",
    ),
    ("kubernetes", "/etc/kubernetes/**", "cluster credentials"),
    ("kubernetes", "/var/lib/kubelet/**", "secrets of all pods"),
    ("rancher", "/etc/rancher/**", "cluster credentials"),
    (
        "rancher",
        "/var/lib/rancher/k3s/server/**",
        "cluster credentials",
    ),
];
