//! Daemons of Debian that were written for systemd, with nothing but a `notify-socket`: they become ready, say so in
//! their own way, and stop cleanly.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::service::{Service, Supervised};
use common::{eventually, finish, run, skip, until};

/// A daemon, in a directory that everybody may use.
struct Home {
    dir: PathBuf,
    port: u16,
}

impl Home {
    /// Writes a configuration, with DIR and PORT replaced; its path.
    fn write(&self, name: &str, text: &str) -> String {
        let text = text.replace("DIR", self.dir.to_str().unwrap()).replace("PORT", &self.port.to_string());
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Runs what has to be done once.
    fn prepare(&self, program: &str, args: &[&str]) {
        let args = args.iter().map(|arg| arg.replace("DIR", self.dir.to_str().unwrap()));
        let outcome = finish(Command::new(program).args(args));
        assert_eq!(outcome.code, 0, "{program}: {}{}", outcome.out, outcome.err);
    }
}

/// Where the program is, among these places; said if it is not there.
fn find(places: &[&str], package: &str) -> Option<String> {
    let found = places.iter().find(|place| Path::new(place).exists()).map(|place| place.to_string());
    if found.is_none() {
        skip(&format!("{package} is not installed"));
    }
    found.filter(|_| {
        let root = nix::unistd::geteuid().is_root();
        if !root {
            skip(&format!("{package} needs root"));
        }
        root
    })
}

/// Starts the daemon by the command that `configure` makes, and waits until it is ready.
fn start(configure: impl FnOnce(&Home) -> String) -> Supervised {
    let service = Service::new("").file("notify-socket", "");
    for dir in [service.scratch.path(""), service.dir()] {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let home = Home { dir: service.scratch.path("home"), port: free_port() };
    std::fs::create_dir(&home.dir).unwrap();
    std::fs::set_permissions(&home.dir, std::fs::Permissions::from_mode(0o777)).unwrap();
    let command = configure(&home);
    service.run(&format!("exec 2>&1; exec {command}"));
    let supervised = service.supervise();
    supervised.wait(&format!("ready: {command}"), |status| status.is_up() && status.ready);
    supervised
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A field of s6-svstat.
fn said(supervised: &Supervised, field: &str) -> String {
    run("s6-svstat", &["-o", field, supervised.service.dir().to_str().unwrap()]).out.trim_end().to_owned()
}

/// Brings it down; the letters of its whole life, for it became ready once and stopped cleanly.
fn stop(mut supervised: Supervised) {
    supervised.command("d");
    let status = supervised.wait_down();
    assert_eq!(said(&supervised, "result"), "success", "{status:?} {}", supervised.errors());
    supervised.listener.expect("suUdD");
}

#[test]
fn redis() {
    let Some(program) = find(&["/usr/bin/redis-server"], "redis-server") else { return };
    let redis = start(|home| {
        let dir = home.dir.display();
        format!("{program} --port 0 --unixsocket {dir}/sock --supervised systemd --daemonize no --save '' --dir {dir}")
    });
    assert_eq!(said(&redis, "statustext"), r#""Ready to accept connections""#);
    stop(redis);
}

#[test]
fn haproxy() {
    let Some(program) = find(&["/usr/sbin/haproxy"], "haproxy") else { return };
    let mut haproxy = start(|home| {
        let conf = home.write(
            "conf",
            "defaults\n mode http\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n\
             frontend web\n bind 127.0.0.1:PORT\n http-request return status 200\n",
        );
        format!("{program} -Ws -f {conf}")
    });
    let pid = haproxy.status().pid;
    haproxy.command("2");
    haproxy.listener.expect("suUU");
    assert_eq!((haproxy.status().pid, said(&haproxy, "notifystate").as_str()), (pid, "ready"));
    haproxy.command("d");
    haproxy.wait_down();
    haproxy.listener.expect("suUUdD");
}

#[test]
fn unbound() {
    let Some(program) = find(&["/usr/sbin/unbound"], "unbound") else { return };
    stop(start(|home| {
        let conf = home.write(
            "conf",
            "server:\n interface: 127.0.0.1\n port: PORT\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n \
             use-syslog: no\n directory: \"DIR\"\n",
        );
        format!("{program} -d -c {conf}")
    }));
}

#[test]
fn knot() {
    let Some(program) = find(&["/usr/sbin/knotd"], "knot") else { return };
    stop(start(|home| {
        let conf = home.write(
            "conf",
            "server:\n  rundir: DIR\n  listen: 127.0.0.1@PORT\ndatabase:\n  storage: DIR\nlog:\n  - target: stderr\n    any: info\n",
        );
        format!("{program} -c {conf}")
    }));
}

#[test]
fn php_fpm() {
    let Some(program) = find(&["/usr/sbin/php-fpm8.2", "/usr/sbin/php-fpm8.4"], "php-fpm") else { return };
    let mut fpm = start(|home| {
        let conf = home.write(
            "conf",
            "[global]\nerror_log = DIR/log\nsystemd_interval = 1\n[www]\nuser = www-data\nlisten = DIR/sock\n\
             pm = static\npm.max_children = 1\n",
        );
        format!("{program} -F -y {conf}")
    });
    let first = said(&fpm, "statustext");
    assert!(first.contains("Ready to handle connections"), "{first}");
    eventually("it says READY=1 again and again", || (said(&fpm, "statustext") != first).then_some(()));
    assert_eq!(fpm.listener.letters(), "suU");
    stop(fpm);
}

#[test]
fn rsyslog() {
    let Some(program) = find(&["/usr/sbin/rsyslogd"], "rsyslog") else { return };
    stop(start(|home| {
        let conf = home.write(
            "conf",
            "module(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"DIR/sock\")\n\
             global(workDirectory=\"DIR\")\n*.* action(type=\"omfile\" file=\"DIR/log\")\n",
        );
        format!("{program} -n -iNONE -f {conf}")
    }));
}

#[test]
fn sshd() {
    let Some(program) = find(&["/usr/sbin/sshd"], "openssh-server") else { return };
    let _ = std::fs::create_dir("/run/sshd");
    stop(start(|home| {
        home.prepare("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", "DIR/key"]);
        let (dir, port) = (home.dir.display(), home.port);
        format!("{program} -D -f /dev/null -h {dir}/key -p {port} -o ListenAddress=127.0.0.1 -o PidFile=none")
    }));
}

#[test]
fn mosquitto() {
    let Some(program) = find(&["/usr/sbin/mosquitto"], "mosquitto") else { return };
    stop(start(|home| {
        let conf = home.write("conf", "listener PORT 127.0.0.1\nuser mosquitto\n");
        format!("{program} -c {conf}")
    }));
}

#[test]
fn postgresql() {
    let places: Vec<String> = (15..20).map(|version| format!("/usr/lib/postgresql/{version}/bin/postgres")).collect();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();
    let Some(program) = find(&places, "postgresql") else { return };
    let setuidgid = common::bin_dir().join("s6-setuidgid").display().to_string();
    stop(start(|home| {
        let initdb = Path::new(&program).with_file_name("initdb").display().to_string();
        home.prepare(&setuidgid, &["postgres", &initdb, "-N", "-A", "trust", "-D", "DIR/data"]);
        let dir = home.dir.display();
        format!("{setuidgid} postgres {program} -D {dir}/data -k {dir} -c listen_addresses=")
    }));
}

#[test]
fn mariadb() {
    let Some(program) = find(&["/usr/sbin/mariadbd"], "mariadb-server") else { return };
    let mariadb = start(|home| {
        let dir = home.dir.display();
        home.prepare("chown", &["mysql", "DIR"]);
        home.prepare("mariadb-install-db", &["--no-defaults", "--user=mysql", "--datadir=DIR/data", "--skip-test-db"]);
        format!(
            "{program} --no-defaults --user=mysql --datadir={dir}/data --socket={dir}/sock --skip-networking \
             --pid-file={dir}/pid"
        )
    });
    assert!(said(&mariadb, "statustext").contains("SQL requests"), "{}", said(&mariadb, "statustext"));
    stop(mariadb);
}

#[test]
fn cups() {
    let Some(program) = find(&["/usr/sbin/cupsd"], "cups-daemon") else { return };
    stop(start(|home| {
        let conf = home.write(
            "cupsd.conf",
            "Listen 127.0.0.1:PORT\nLogLevel debug\n<Location />\nOrder allow,deny\n</Location>\n",
        );
        let files = home.write(
            "cups-files.conf",
            "ServerRoot DIR\nStateDir DIR\nCacheDir DIR\nRequestRoot DIR\nTempDir DIR\nDataDir /usr/share/cups\n\
             ErrorLog stderr\nAccessLog DIR/access\nPageLog DIR/page\n",
        );
        format!("{program} -l -c {conf} -s {files}")
    }));
}

#[test]
fn systemd_notify() {
    let Some(program) = find(&["/usr/bin/systemd-notify"], "systemd") else { return };
    let service = Service::new(&format!("{program} --ready --status='from a script'; exec sleep 1000"));
    let supervised = service.file("notify-socket", "").supervise();
    supervised.wait("it is ready", |status| status.is_up() && status.ready);
    assert_eq!(said(&supervised, "statustext"), r#""from a script""#);
    stop(supervised);
}

#[test]
fn python_systemd() {
    let python = "/usr/bin/python3";
    if !Command::new(python).args(["-c", "import systemd.daemon"]).status().is_ok_and(|status| status.success()) {
        return skip("python3-systemd is not installed");
    }
    let script = "import os, time
from systemd import daemon
fds = daemon.listen_fds_with_names()
if not fds:
    daemon.notify('FDSTORE=1\\nFDNAME=mine', fds=[os.memfd_create('m')])
daemon.notify('READY=1\\nSTATUS=' + repr(fds))
time.sleep(1000)
";
    let service = Service::new("exec /usr/bin/python3 script").file("script", script);
    let supervised = service.file("notify-socket", "").file("fdstore-max", "2").supervise();
    supervised.wait("it is ready", |status| status.is_up() && status.ready);
    assert_eq!(said(&supervised, "statustext,nfds"), r#""{}" 1"#);
    supervised.command("r");
    until("it has its descriptor again", || said(&supervised, "statustext") == r#""{3: 'mine'}""#);
}
