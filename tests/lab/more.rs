//! Failures that are provoked only where cases are recorded (`VMKIT_LAB_RECORD`): each is a real deploy
//! that fails, too many for the time that a scenario has. What is expected of each was written down
//! before it was recorded.

use serde_json::json;

use crate::record::{is_new, record, record_now, records};
use crate::rig::{call, until};
use crate::steps::{deploys, done};
use crate::trouble::{Harm, REEF, Trouble};

/// An image with a real Python and a real Ruby, for what they say of themselves.
const LANGUAGES: &str = "FROM vmkit-lab/vm AS python
FROM vmkit-lab/runner AS ruby
FROM vmkit-lab/busybox
COPY --from=ruby /usr/lib64/ld-linux-x86-64.so.2 /lib64/
COPY --from=ruby /usr/lib/x86_64-linux-gnu/libc.so.6 /usr/lib/x86_64-linux-gnu/libm.so.6 /usr/lib/x86_64-linux-gnu/libz.so.1 /usr/lib/x86_64-linux-gnu/libgmp.so.10 /usr/lib/x86_64-linux-gnu/libcrypt.so.1 /usr/lib/x86_64-linux-gnu/libruby-3.3.so.3.3 /usr/lib/x86_64-linux-gnu/
COPY --from=ruby /usr/lib/ruby /usr/lib/ruby
COPY --from=ruby /usr/lib/x86_64-linux-gnu/ruby /usr/lib/x86_64-linux-gnu/ruby
COPY --from=ruby /usr/bin/ruby3.3 /bin/ruby
COPY --from=python /usr/lib/x86_64-linux-gnu/libexpat.so.1 /usr/lib/x86_64-linux-gnu/libsqlite3.so.0 /usr/lib/x86_64-linux-gnu/
COPY --from=python /usr/lib/python3.13 /usr/lib/python3.13
COPY --from=python /usr/bin/python3.13 /bin/python3
ENV PYTHONHOME=/usr
WORKDIR /app
COPY . /app
EXPOSE 8080
CMD [\"sh\", \"/app/web.sh\"]
";

/// What a version does before it listens, and the code.
const OF_AN_APP: &[(&str, &str, &str)] = &[
    ("silent", "exit 1", "crashed_at_start"),
    ("job-done", "echo 'all mail is sent'; exit 2", "crashed_at_start"),
    ("shell-unset", ": \"${API_TOKEN:?}\"", "missing_env_key"),
    ("shell-port-twice", "httpd -p 8080; httpd -f -p 8080; exit 1", "port_in_use"),
    ("python-module", "exec python3 -c 'import flask'", "module_missing"),
    ("python-key", "exec python3 -c 'import os; os.environ[\"STRIPE_KEY\"]'", "missing_env_key"),
    (
        "python-memory",
        "ulimit -v 90000; exec python3 -c 'a = [\"x\" * 1000000 for _ in range(900)]'",
        "out_of_memory",
    ),
    ("python-localhost", "exec python3 -u -m http.server 8080 --bind 127.0.0.1", "wrong_port"),
    ("python-other-port", "exec python3 -u -m http.server 5000", "wrong_port"),
    (
        "python-no-path",
        "mkdir /empty; cd /empty; exec python3 -m http.server 8080",
        "wrong_health_path",
    ),
    (
        "python-sqlite",
        "exec python3 -c 'import sqlite3; sqlite3.connect(\"/data/app.db\").execute(\"select 1\")'",
        "volume_forbidden",
    ),
    ("python-syntax", "exec python3 -c 'def ('", "crashed_at_start"),
    ("python-error", "exec python3 -c 'print(1 / 0)'", "crashed_at_start"),
    ("python-abort", "exec python3 -c 'import os; os.abort()'", "crashed_at_start"),
    ("python-file", "exec python3 manage.py runserver", "module_missing"),
    (
        "python-deaf",
        "exec python3 -c 'import socket, time; s = socket.create_server((\"\", 8080)); time.sleep(600)'",
        "health_check_slow",
    ),
    (
        "python-500",
        "cat > /tmp/a.py <<'P'\nfrom http.server import *\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self): self.send_error(500)\nHTTPServer(('', 8080), H).serve_forever()\nP\nexec python3 /tmp/a.py",
        "wrong_health_path",
    ),
    (
        "python-401",
        "cat > /tmp/a.py <<'P'\nfrom http.server import *\nclass H(BaseHTTPRequestHandler):\n    def do_GET(self): self.send_error(401)\nHTTPServer(('', 8080), H).serve_forever()\nP\nexec python3 /tmp/a.py",
        "wrong_health_path",
    ),
    ("ruby-key", "exec ruby -e 'ENV.fetch(\"SECRET_KEY_BASE\")'", "missing_env_key"),
    ("ruby-gem", "exec ruby -e 'require \"sinatra\"'", "module_missing"),
    (
        "ruby-database",
        "exec ruby -rsocket -e 'TCPSocket.new(\"127.0.0.1\", 5432)'",
        "database_unreachable",
    ),
    (
        "ruby-port-twice",
        "exec ruby -rsocket -e 'TCPServer.new(8080); TCPServer.new(8080)'",
        "port_in_use",
    ),
    ("ruby-error", "exec ruby -e 'nil.upcase'", "crashed_at_start"),
];

/// What starts in the image of a version, and the code.
const OF_AN_IMAGE: &[(&str, &str, &str)] = &[
    ("no-command", "CMD [\"bin/server\"]", "command_missing"),
    ("no-mode", "CMD [\"/app/text\"]", "command_missing"),
];

/// What a worker beside a well web process does, and the code.
const OF_A_WORKER: &[(&str, &str, &str)] = &[
    ("worker-crash", "false", "crashed_at_start"),
    ("worker-file", "python3 absent.py", "module_missing"),
    ("worker-command", "bin/work", "command_missing"),
];

/// What stands wrong in a file of the repo, found by a run past VMKit: the file, what is replaced in it,
/// by what, and the code.
const IN_A_FILE: &[(&str, &str, &str, &str, &str)] = &[
    ("config-indent", CONFIG, r"(?m)^image:", "  image:", "kamal_config"),
    ("config-key", CONFIG, r"(?m)^proxy:", "proxy:\n  answer_timeout: 3", "kamal_config"),
    ("config-empty", CONFIG, r"(?s).+", "# nothing yet\n", "kamal_config"),
    ("image-absent", CONFIG, r"(?m)^image: .*", "image: octo/absent", "image_missing"),
    ("image-of-another", CONFIG, r"(?m)^service: .*", "service: reef-other", "image_label_missing"),
    ("address-name", CONFIG, r"\d+\.\d+\.\d+\.\d+", "vm.invalid", "address_unknown"),
    ("user-other", CONFIG, r"(?m)^  user: .*", "  user: nobody", "ssh_auth_failed"),
    (
        "password-wrong",
        SECRETS,
        r"(?m)^KAMAL_REGISTRY_PASSWORD=.*",
        "KAMAL_REGISTRY_PASSWORD=wrong",
        "registry_denied",
    ),
    (
        "password-empty",
        SECRETS,
        r"(?m)^KAMAL_REGISTRY_PASSWORD=.*",
        "KAMAL_REGISTRY_PASSWORD=",
        "registry_password_empty",
    ),
];
const CONFIG: &str = "config/deploy.staging.yml";
const SECRETS: &str = ".kamal/secrets";

/// As [`crate::trouble::ON_THE_VM`].
pub(crate) const ON_THE_VM: &[Harm] = &[
    (
        "lock-of-a-dead-run",
        "cd /home/kamal/.kamal && mkdir lock-reef-staging && printf 'Locked by: vmkit-run-7-1 at 2026-11-20T09:30:00Z\\nVersion: 1\\nMessage: Automatic deploy lock' | base64 -w 0 > lock-reef-staging/details && chown -R kamal lock-reef-staging",
        "deploy_locked",
        "rm -r /home/kamal/.kamal/lock-reef-staging",
    ),
    (
        "docker-gone",
        "mv /usr/bin/docker /root/docker",
        "docker_missing",
        "mv /root/docker /usr/bin/docker",
    ),
    (
        "sshd-down",
        "systemctl stop ssh.socket ssh.service",
        "vm_unreachable",
        "systemctl start ssh.service",
    ),
    (
        "tls-port-taken",
        "docker rm -f kamal-proxy; (setsid python3 -m http.server 443 >/dev/null 2>&1 & echo $! > /root/taken)",
        "port_taken",
        "kill $(cat /root/taken); docker rm -f kamal-proxy",
    ),
    (
        "registry-away",
        "iptables -I OUTPUT -d $(getent hosts ghcr.io | cut -d' ' -f1) -p tcp --dport 443 -j REJECT --reject-with tcp-reset",
        "registry_down",
        "iptables -D OUTPUT -d $(getent hosts ghcr.io | cut -d' ' -f1) -p tcp --dport 443 -j REJECT --reject-with tcp-reset",
    ),
    (
        "kamal-home",
        "chown root /home/kamal/.ssh/authorized_keys && chmod 600 /home/kamal/.ssh/authorized_keys",
        "ssh_auth_failed",
        "chown kamal /home/kamal/.ssh/authorized_keys",
    ),
];

/// What is wrong with an environment that was live, and the code.
const AT_PRESENT: &[Harm] = &[
    (
        "docker-down",
        "systemctl stop docker.socket docker.service",
        "app_not_answering",
        "systemctl start docker.service",
    ),
    ("proxy-stopped", "docker stop kamal-proxy", "app_not_answering", "docker start kamal-proxy"),
    (
        "app-stopped",
        "docker stop -t 1 $(docker ps -qf label=service=reef-staging -f label=role=web)",
        "app_stopped",
        "docker start $(docker ps -aqf label=service=reef-staging -f label=role=web | head -n 1)",
    ),
    (
        "path-gone",
        "docker exec $(docker ps -qf label=service=reef-staging -f label=role=web) mv /app/www/up /app/www/was",
        "wrong_health_path",
        "docker exec $(docker ps -qf label=service=reef-staging -f label=role=web) mv /app/www/was /app/www/up",
    ),
];

impl Trouble<'_> {
    /// The failures of versions that are recorded beside those of the scenario.
    pub(crate) async fn more_of_a_version(&mut self) {
        if !records() {
            return;
        }
        let dockerfile = self.repo.read("Dockerfile").await;
        self.repo.push("Dockerfile", LANGUAGES).await;
        for (name, before, code) in OF_AN_APP.iter().filter(|one| is_new(one.0)) {
            self.repo.push("before.sh", &format!("{before}\n")).await;
            self.breaks(name, code).await;
        }
        self.repo.push("before.sh", "").await;
        for (name, command, code) in OF_AN_IMAGE.iter().filter(|one| is_new(one.0)) {
            let lines: Vec<&str> =
                LANGUAGES.lines().filter(|line| !line.starts_with("CMD")).collect();
            self.repo.push("Dockerfile", &format!("{}\n{command}\n", lines.join("\n"))).await;
            self.breaks(name, code).await;
        }
        self.repo.push("Dockerfile", LANGUAGES).await;
        for (name, command, code) in OF_A_WORKER.iter().filter(|one| is_new(one.0)) {
            let worker = json!({"processes": {"worker": {"command": command}}});
            done(self.client, "configure_app", REEF.with(worker)).await;
            self.breaks(name, code).await;
        }
        let release = json!({"reset": ["process worker"], "release": "false"});
        done(self.client, "configure_app", REEF.with(release)).await;
        self.breaks("release", "migration_failed").await;
        let none = json!({"reset": ["release"]});
        done(self.client, "configure_app", REEF.with(none)).await;
        self.repo.push("Dockerfile", &dockerfile).await;
    }

    /// What a run past VMKit meets, which would have written the files anew.
    pub(crate) async fn more_by_hand(&self) {
        if !records() {
            return;
        }
        let (rig, repo) = (self.rig, self.repo);
        for (name, file, from, to, code) in IN_A_FILE.iter().filter(|one| is_new(one.0)) {
            let before = repo.read(file).await;
            let from = regex::Regex::new(from).expect("a regex");
            repo.push(file, &from.replace_all(&before, *to)).await;
            let conclusion = repo.deploy_by_hand("staging").await;
            record(rig, repo, REEF, name, code).await;
            repo.push(file, &before).await;
            rig.tell(&format!("{name}: {conclusion}"));
        }
        rig.on_vm("mv /etc/vmkit/env/reef/staging.env /root/staging.env");
        repo.deploy_by_hand("staging").await;
        record(rig, repo, REEF, "env-file-gone", "env_file_missing").await;
        rig.on_vm("mv /root/staging.env /etc/vmkit/env/reef/staging.env");
    }

    /// What is wrong just now, after a deploy that went well.
    pub(crate) async fn more_of_the_present(&mut self) {
        if !records() {
            return;
        }
        let none = json!({"reset": ["process worker"]});
        done(self.client, "configure_app", REEF.with(none)).await;
        record_now(self.rig, REEF, "well", "unknown").await;
        for (name, harm, code, mend) in AT_PRESENT {
            self.rig.on_vm(harm);
            call(self.client, "diagnose", REEF.only()).await;
            record_now(self.rig, REEF, name, code).await;
            self.rig.on_vm(mend);
            self.rig.tell(&format!("{name}, at present: {code}"));
        }
        self.repo.push("text", "present\n").await;
        deploys(self.rig, self.repo, self.client, REEF.only()).await;
        let crash = "docker exec $(docker ps -qf label=service=reef-staging -f label=role=web) sh -c 'echo \"echo no such table: tides; exit 3\" > /app/before.sh; kill 1'";
        self.rig.on_vm(crash);
        until("the app is in a loop", async || {
            let restarts = "docker inspect -f '{{.RestartCount}}' $(docker ps -aqf label=service=reef-staging -f label=role=web | head -n 1)";
            self.rig.on_vm(restarts).trim().parse().is_ok_and(|times: u32| times > 3)
        })
        .await;
        record_now(self.rig, REEF, "crash-loop", "crash_loop").await;
        deploys(self.rig, self.repo, self.client, REEF.with(json!({"ref": "current"}))).await;
        self.rig.cut_power().await;
        until("the VM is off", async || !self.rig.sandbox.machines().list()[0].is_on().await).await;
        call(self.client, "diagnose", REEF.only()).await;
        record_now(self.rig, REEF, "off", "vm_off").await;
        let conclusion = self.repo.deploy_by_hand("staging").await;
        assert_eq!(conclusion, "failure");
        record(self.rig, self.repo, REEF, "off", "vm_off").await;
    }
}
