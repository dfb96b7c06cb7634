//! Thirteen real daemons of Debian that put themselves into the background: how to start each, with a configuration
//! of its own in a scratch directory, on a loopback port or a unix socket, and how to see that it serves.
//!
//! They are started as root, as their packages do.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::text;

/// One of them.
#[derive(Debug)]
pub struct Daemon {
    pub name: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// Its program.
    pub program: &'static str,
    /// Writes the configuration and returns the arguments.
    pub configure: fn(&Home) -> String,
    /// The pid file, where that cannot be configured.
    pub pid_file: Option<&'static str>,
    /// Whether it answers.
    pub serves: fn(&Home) -> bool,
    /// What a signal, by its s6-svc letter, does to it.
    pub told: (&'static str, Effect),
}

/// What a signal does to a daemon.
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Main stays, and this, asked again and again, changes: the signal had its effect.
    Stays(fn(&Home, i32) -> String),
    /// Main goes into the background again under another number.
    Forks,
    /// It exits.
    Exits,
}

/// Where a daemon lives.
#[derive(Debug)]
pub struct Home {
    pub dir: PathBuf,
    /// A loopback port that was free a moment ago.
    pub port: u16,
    daemon: &'static Daemon,
}

impl Home {
    /// In a directory that everybody may use, since some daemons drop their privileges first.
    pub fn new(daemon: &'static Daemon, dir: PathBuf) -> Home {
        fs::create_dir_all(&dir).unwrap();
        for dir in [&dir, dir.parent().unwrap()] {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Home { dir, port, daemon }
    }

    pub fn pid_file(&self) -> PathBuf {
        self.daemon.pid_file.map_or_else(|| self.path("pid"), PathBuf::from)
    }

    /// The whole command line; writes what it needs.
    pub fn command(&self) -> String {
        format!("{} {}", self.daemon.program, (self.daemon.configure)(self))
    }

    pub fn serves(&self) -> bool {
        (self.daemon.serves)(self)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Writes a configuration, with DIR, PORT and PID replaced.
    fn write(&self, name: &str, text: &str) -> String {
        let text = text
            .replace("DIR", self.dir.to_str().unwrap())
            .replace("PORT", &self.port.to_string())
            .replace("PID", self.pid_file().to_str().unwrap());
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The beginning of the answer on the port, or on the socket `socket`.
    fn answer(&self, question: &str) -> String {
        let timeout = Some(Duration::from_secs(1));
        let mut buffer = [0; 1024];
        let socket = self.path("socket");
        let count = if socket.exists() {
            UnixStream::connect(socket).and_then(|mut stream| {
                stream.set_read_timeout(timeout)?;
                stream.write_all(question.as_bytes())?;
                stream.read(&mut buffer)
            })
        } else {
            TcpStream::connect(("127.0.0.1", self.port)).and_then(|mut stream| {
                stream.set_read_timeout(timeout)?;
                stream.write_all(question.as_bytes())?;
                stream.read(&mut buffer)
            })
        };
        String::from_utf8_lossy(&buffer[..count.unwrap_or(0)]).into_owned()
    }

    fn speaks_http(&self) -> bool {
        self.answer("GET / HTTP/1.0\r\n\r\n").starts_with("HTTP/1.")
    }

    /// Whether the address 127.0.0.9 is answered for ok.test.
    fn resolves(&self) -> bool {
        let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02ok\x04test\x00\x00\x01\x00\x01";
        let mut buffer = [0; 512];
        let count = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(("127.0.0.1", self.port))?;
            socket.send(question)?;
            socket.recv(&mut buffer)
        });
        buffer[..count.unwrap_or(0)].ends_with(&[127, 0, 0, 9])
    }
}

/// The children of main, as text.
fn workers(_: &Home, main: i32) -> String {
    let mut children: Vec<i32> =
        s6::sys::process::all().iter().filter(|e| e.parent.as_raw() == main).map(|e| e.pid.as_raw()).collect();
    children.sort();
    format!("{children:?}")
}

/// The file `log`.
fn log(home: &Home, _: i32) -> String {
    text(home.path("log"))
}

/// Is there nothing to ask, it serves when it has written its pid file.
fn has_pid_file(home: &Home) -> bool {
    home.pid_file().exists()
}

pub static DAEMONS: &[Daemon] = &[
    Daemon {
        name: "nginx",
        package: "nginx",
        program: "/usr/sbin/nginx",
        configure: |home| {
            let conf = home.write(
                "nginx.conf",
                "user root; pid PID; error_log DIR/log; worker_processes 2;
                 events {}
                 http {
                     access_log off;
                     client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/fastcgi;
                     uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
                     server { listen 127.0.0.1:PORT; location / { return 200 ok; } }
                 }",
            );
            format!("-c {conf} -g 'daemon on;'")
        },
        pid_file: None,
        serves: Home::speaks_http,
        told: ("h", Effect::Stays(workers)),
    },
    Daemon {
        name: "haproxy",
        package: "haproxy",
        program: "/usr/sbin/haproxy",
        configure: |home| {
            let conf = home.write(
                "haproxy.cfg",
                "defaults
                     mode http
                     timeout connect 1s
                     timeout client 1s
                     timeout server 1s
                 frontend web
                     bind 127.0.0.1:PORT
                     http-request return status 200\n",
            );
            format!("-D -f {conf} -p {}", home.pid_file().display())
        },
        pid_file: None,
        serves: Home::speaks_http,
        told: ("1", Effect::Exits),
    },
    Daemon {
        name: "rsyslogd",
        package: "rsyslog",
        program: "/usr/sbin/rsyslogd",
        configure: |home| {
            let conf = home.write(
                "rsyslog.conf",
                "global(processInternalMessages=\"on\" workDirectory=\"DIR\")
                 module(load=\"imuxsock\" SysSock.Use=\"off\")
                 input(type=\"imuxsock\" Socket=\"DIR/socket\")
                 *.* action(type=\"omfile\" file=\"DIR/log\")\n",
            );
            format!("-f {conf} -i {}", home.pid_file().display())
        },
        pid_file: None,
        serves: |home| {
            let before = log(home, 0).matches("hello").count();
            UnixDatagram::unbound().unwrap().send_to(b"<13>test: hello", home.path("socket")).is_ok()
                && (0..100).any(|_| {
                    std::thread::sleep(Duration::from_millis(5));
                    log(home, 0).matches("hello").count() > before
                })
        },
        told: ("h", Effect::Stays(log)),
    },
    Daemon {
        name: "dnsmasq",
        package: "dnsmasq-base",
        program: "/usr/sbin/dnsmasq",
        configure: |home| {
            format!(
                "-C /dev/null -p {} -a 127.0.0.1 -z --user=root -x {} --no-resolv --no-hosts --log-facility={} \
                 --address=/ok.test/127.0.0.9",
                home.port,
                home.pid_file().display(),
                home.path("log").display()
            )
        },
        pid_file: None,
        serves: Home::resolves,
        told: ("1", Effect::Stays(log)),
    },
    Daemon {
        name: "lighttpd",
        package: "lighttpd",
        program: "/usr/sbin/lighttpd",
        configure: |home| {
            let conf = home.write(
                "lighttpd.conf",
                "server.document-root = \"DIR\"
                 server.bind = \"127.0.0.1\"
                 server.port = PORT
                 server.pid-file = \"PID\"
                 server.errorlog = \"DIR/log\"\n",
            );
            format!("-f {conf}")
        },
        pid_file: None,
        serves: Home::speaks_http,
        told: ("h", Effect::Stays(log)),
    },
    Daemon {
        name: "atd",
        package: "at",
        program: "/usr/sbin/atd",
        configure: |_| String::new(),
        pid_file: Some("/run/atd.pid"),
        serves: has_pid_file,
        told: ("i", Effect::Exits),
    },
    Daemon {
        name: "unbound",
        package: "unbound",
        program: "/usr/sbin/unbound",
        configure: |home| {
            let conf = home.write(
                "unbound.conf",
                "server:
                     interface: 127.0.0.1
                     port: PORT
                     do-daemonize: yes
                     pidfile: \"PID\"
                     directory: \"DIR\"
                     chroot: \"\"
                     username: \"\"
                     logfile: \"DIR/log\"
                     use-syslog: no
                     verbosity: 1
                     module-config: iterator
                     local-data: \"ok.test. A 127.0.0.9\"
                 remote-control:
                     control-enable: no\n",
            );
            format!("-c {conf}")
        },
        pid_file: None,
        serves: Home::resolves,
        told: ("h", Effect::Stays(log)),
    },
    Daemon {
        name: "exim4",
        package: "exim4-daemon-light",
        program: "/usr/sbin/exim4",
        configure: |home| {
            let conf = home.write(
                "exim.conf",
                "primary_hostname = localhost
                 spool_directory = DIR
                 log_file_path = DIR/%slog
                 pid_file_path = PID
                 daemon_smtp_ports = PORT
                 local_interfaces = 127.0.0.1
                 keep_environment =\n",
            );
            format!("-C {conf} -bd")
        },
        pid_file: None,
        serves: |home| home.answer("").starts_with("220 "),
        told: ("h", Effect::Forks),
    },
    Daemon {
        name: "redis",
        package: "redis-server",
        program: "/usr/bin/redis-server",
        configure: |home| {
            let (dir, pid) = (home.dir.display(), home.pid_file());
            format!(
                "--port 0 --unixsocket {dir}/socket --daemonize yes --pidfile {} --save '' --dir {dir} --logfile {dir}/log",
                pid.display()
            )
        },
        pid_file: None,
        serves: |home| home.answer("PING\r\n").starts_with("+PONG"),
        told: ("i", Effect::Exits),
    },
    Daemon {
        name: "apache2",
        package: "apache2",
        program: "/usr/sbin/apache2",
        configure: |home| {
            let conf = home.write(
                "apache.conf",
                "ServerRoot DIR
                 ServerName localhost
                 Listen 127.0.0.1:PORT
                 PidFile PID
                 ErrorLog DIR/log
                 DocumentRoot DIR
                 DefaultRuntimeDir DIR
                 LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
                 LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
                 StartServers 2
                 User www-data
                 Group www-data\n",
            );
            format!("-f {conf}")
        },
        pid_file: None,
        serves: Home::speaks_http,
        told: ("h", Effect::Stays(workers)),
    },
    Daemon {
        name: "cron",
        package: "cron",
        program: "/usr/sbin/cron",
        configure: |_| String::new(),
        pid_file: Some("/run/crond.pid"),
        serves: has_pid_file,
        told: ("i", Effect::Exits),
    },
    Daemon {
        name: "sshd",
        package: "openssh-server",
        program: "/usr/sbin/sshd",
        configure: |home| {
            fs::create_dir_all("/run/sshd").unwrap();
            let key = home.path("key");
            if !key.exists() {
                let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
                assert!(made.is_ok_and(|status| status.success()));
            }
            format!(
                "-f /dev/null -p {} -h {} -E {} -o ListenAddress=127.0.0.1 -o PidFile={} -o UsePAM=no -o StrictModes=no \
                 -o AuthorizedKeysFile={}.pub",
                home.port,
                key.display(),
                home.path("log").display(),
                home.pid_file().display(),
                key.display()
            )
        },
        pid_file: None,
        serves: |home| home.answer("").starts_with("SSH-2.0-"),
        told: ("h", Effect::Forks),
    },
    Daemon {
        name: "memcached",
        package: "memcached",
        program: "/usr/bin/memcached",
        configure: |home| format!("-d -u nobody -s {} -P {}", home.path("socket").display(), home.pid_file().display()),
        pid_file: None,
        serves: |home| home.answer("version\r\n").starts_with("VERSION "),
        told: ("i", Effect::Exits),
    },
];

/// The daemon of that name. `None`, said on stderr, where it is not installed or may not be started.
pub fn find(name: &str) -> Option<&'static Daemon> {
    let daemon = DAEMONS.iter().find(|daemon| daemon.name == name).unwrap();
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("skipped: {name} wants to be started by root");
        return None;
    }
    if !Path::new(daemon.program).exists() {
        eprintln!("skipped: {} is not installed (apt-get install {})", daemon.program, daemon.package);
        return None;
    }
    Some(daemon)
}
