pragma foreign_keys = off;
pragma user_version = 10;
CREATE TABLE installation (
    only_row integer primary key check (only_row = 1),
    id text not null,
    mode text not null check (mode in ('local', 'gateway')),
    url text,
    key_fingerprint text not null,
    created_at integer not null
) strict;
insert into installation (only_row, id, mode, url, key_fingerprint, created_at) values (1, 'ins_01k00000000000000000000001', 'gateway', 'https://vmkit.example.com', '0123456789abcdef', 1800000000000);
CREATE TABLE secret (
    id text primary key,
    purpose text not null,
    sealed blob not null,
    created_at integer not null
) strict;
insert into secret (id, purpose, sealed, created_at) values ('sec_01k00000000000000000000001', 'cloud_token', X'7365616C6564206279207468652074657374', 1800000000000);
insert into secret (id, purpose, sealed, created_at) values ('sec_01k00000000000000000000002', 'github_token', X'7365616C6564206279207468652074657374', 1800000000000);
insert into secret (id, purpose, sealed, created_at) values ('sec_01k00000000000000000000003', 'gateway_identity', X'7365616C6564206279207468652074657374', 1800000000000);
insert into secret (id, purpose, sealed, created_at) values ('sec_01k00000000000000000000004', 'deploy_key', X'7365616C6564206279207468652074657374', 1800000000000);
insert into secret (id, purpose, sealed, created_at) values ('sec_01k00000000000000000000005', 'enrolment_token', X'7365616C6564206279207468652074657374', 1800000000000);
insert into secret (id, purpose, sealed, created_at) values ('sec_01k00000000000000000000006', 'deploy_key', X'7365616C6564206279207468652074657374', 1800000000000);
CREATE TABLE account (
    id text primary key,
    provider text not null unique check (provider in ('hetzner', 'digitalocean', 'github', 'cloudflare')),
    secret text not null references secret (id),
    created_at integer not null
) strict;
insert into account (id, provider, secret, created_at) values ('acc_01k00000000000000000000001', 'hetzner', 'sec_01k00000000000000000000001', 1800000000000);
insert into account (id, provider, secret, created_at) values ('acc_01k00000000000000000000002', 'github', 'sec_01k00000000000000000000002', 1800000000000);
CREATE TABLE app (
    id text primary key,
    slug text not null unique,
    repo_id integer not null,
    repo text not null,
    default_branch text not null,
    root text not null,
    changes text not null check (changes in ('pr', 'direct')),
    scan text not null,
    -- The digest of each file as it was last written by us: another one is a person's edit.
    written text not null default '{}',
    created_at integer not null, auto_merge integer not null default 0 check (auto_merge in (0, 1)),
    unique (repo_id, root)
) strict;
insert into app (id, slug, repo_id, repo, default_branch, root, changes, scan, written, created_at, auto_merge) values ('app_01k00000000000000000000001', 'shop', 1001, 'octo/shop', 'main', '.', 'pr', '{"builder":"buildpacks"}', '{"config/deploy.production.yml":["0000000000000000000000000000000000000000000000000000000000000000"]}', 1800000000000, 0);
CREATE TABLE vm (
    id text primary key,
    provider text not null,
    provider_id text,
    size text not null,
    region text not null,
    arch text not null check (arch in ('amd64', 'arm64')),
    address text,
    known_hosts text,
    state text not null check (state in ('ordered', 'ready', 'deleting', 'deleted')),
    monthly_amount text not null,
    monthly_currency text not null,
    agent_public_key blob,
    enrolment_hash blob,
    enrolment_expires_at integer,
    created_at integer not null
, address_id text, ipv6 text, rest text check (rest in ('parked', 'kept'))) strict;
insert into vm (id, provider, provider_id, size, region, arch, address, known_hosts, state, monthly_amount, monthly_currency, agent_public_key, enrolment_hash, enrolment_expires_at, created_at, address_id, ipv6, rest) values ('vm_01k00000000000000000000001', 'hetzner', '42', 'cpx22', 'fsn1', 'amd64', '203.0.113.7', '203.0.113.7 ssh-ed25519 host-key-for-tests', 'ready', '7.99', 'EUR', X'0101010101010101010101010101010101010101010101010101010101010101', X'0202020202020202020202020202020202020202020202020202020202020202', 1800003600000, 1800000000000, NULL, NULL, NULL);
insert into vm (id, provider, provider_id, size, region, arch, address, known_hosts, state, monthly_amount, monthly_currency, agent_public_key, enrolment_hash, enrolment_expires_at, created_at, address_id, ipv6, rest) values ('vm_01k00000000000000000000002', 'hetzner', NULL, 'cpx22', 'fsn1', 'amd64', NULL, NULL, 'ordered', '7.99', 'EUR', NULL, X'0303030303030303030303030303030303030303030303030303030303030303', 1800003600000, 1800000000000, NULL, NULL, NULL);
insert into vm (id, provider, provider_id, size, region, arch, address, known_hosts, state, monthly_amount, monthly_currency, agent_public_key, enrolment_hash, enrolment_expires_at, created_at, address_id, ipv6, rest) values ('vm_01k00000000000000000000003', 'hetzner', '43', 'cpx22', 'fsn1', 'amd64', '203.0.113.8', NULL, 'deleted', '7.99', 'EUR', NULL, NULL, NULL, 1800000000000, NULL, NULL, NULL);
CREATE TABLE environment (
    id text primary key,
    app text not null references app (id),
    name text not null,
    vm text references vm (id),
    size text not null,
    region text not null,
    domain text,
    port integer not null,
    health_path text not null,
    protected integer not null check (protected in (0, 1)),
    env_revision integer not null default 0,
    created_at integer not null,
    deleted_at integer
, provider text, run text not null default '{}') strict;
insert into environment (id, app, name, vm, size, region, domain, port, health_path, protected, env_revision, created_at, deleted_at, provider, run) values ('env_01k00000000000000000000001', 'app_01k00000000000000000000001', 'production', 'vm_01k00000000000000000000001', 'cpx22', 'fsn1', 'shop.example.com', 8080, '/up', 1, 2, 1800000000000, NULL, NULL, '{}');
insert into environment (id, app, name, vm, size, region, domain, port, health_path, protected, env_revision, created_at, deleted_at, provider, run) values ('env_01k00000000000000000000002', 'app_01k00000000000000000000001', 'staging', 'vm_01k00000000000000000000002', 'cpx22', 'fsn1', NULL, 8080, '/up', 0, 0, 1800000000000, NULL, NULL, '{}');
insert into environment (id, app, name, vm, size, region, domain, port, health_path, protected, env_revision, created_at, deleted_at, provider, run) values ('env_01k00000000000000000000003', 'app_01k00000000000000000000001', 'old', NULL, 'cpx22', 'fsn1', NULL, 8080, '/up', 0, 0, 1800000000000, NULL, NULL, '{}');
insert into environment (id, app, name, vm, size, region, domain, port, health_path, protected, env_revision, created_at, deleted_at, provider, run) values ('env_01k00000000000000000000004', 'app_01k00000000000000000000001', 'gone', NULL, 'cpx22', 'fsn1', NULL, 8080, '/up', 0, 0, 1800000000000, 1800000000005, NULL, '{}');
CREATE TABLE deploy_key (
    environment text not null references environment (id),
    vm text not null references vm (id),
    public_key text not null,
    secret text not null references secret (id),
    created_at integer not null,
    primary key (environment, vm)
) strict;
insert into deploy_key (environment, vm, public_key, secret, created_at) values ('env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 'ssh-ed25519 deploy-key-for-tests', 'sec_01k00000000000000000000004', 1800000000000);
insert into deploy_key (environment, vm, public_key, secret, created_at) values ('env_01k00000000000000000000002', 'vm_01k00000000000000000000002', 'ssh-ed25519 deploy-key-for-tests', 'sec_01k00000000000000000000006', 1800000000000);
CREATE TABLE env_var (
    environment text not null references environment (id),
    key text not null,
    revision integer not null,
    class text not null check (class in ('plain', 'secret')),
    sealed blob,
    mark text,
    created_at integer not null,
    primary key (environment, key, revision)
) strict;
insert into env_var (environment, key, revision, class, sealed, mark, created_at) values ('env_01k00000000000000000000001', 'GREETING', 1, 'plain', X'7365616C6564206279207468652074657374', '0a0a0a0a', 1800000000001);
insert into env_var (environment, key, revision, class, sealed, mark, created_at) values ('env_01k00000000000000000000001', 'DATABASE_URL', 1, 'secret', X'7365616C6564206279207468652074657374', '0b0b0b0b', 1800000000001);
insert into env_var (environment, key, revision, class, sealed, mark, created_at) values ('env_01k00000000000000000000001', 'OLD_FLAG', 1, 'plain', X'7365616C6564206279207468652074657374', '0c0c0c0c', 1800000000001);
insert into env_var (environment, key, revision, class, sealed, mark, created_at) values ('env_01k00000000000000000000001', 'GREETING', 2, 'plain', X'7365616C6564206279207468652074657374', '0d0d0d0d', 1800000000002);
insert into env_var (environment, key, revision, class, sealed, mark, created_at) values ('env_01k00000000000000000000001', 'OLD_FLAG', 2, 'plain', NULL, NULL, 1800000000002);
CREATE TABLE operation (
    id text primary key,
    kind text not null,
    version integer not null,
    params text not null,
    state text not null check (state in
        ('queued', 'running', 'waiting_approval', 'needs_merge', 'succeeded', 'failed', 'cancelled', 'stuck')),
    environment text references environment (id),
    vm text references vm (id),
    undoing integer not null default 0 check (undoing in (0, 1)),
    cancel_requested integer not null default 0 check (cancel_requested in (0, 1)),
    lease_holder text,
    lease_epoch integer not null default 0,
    lease_expires_at integer not null default 0,
    step integer not null default 0,
    steps integer not null,
    message text not null,
    error_code text,
    error_message text,
    error_fix text,
    result text,
    caller text not null,
    reason text,
    created_at integer not null,
    updated_at integer not null,
    ended_at integer
) strict;
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000001', 'setup_repo', 1, '{"app":"shop","environments":["production"]}', 'needs_merge', NULL, NULL, 0, 0, NULL, 0, 0, 2, 2, 'merge the pull request', NULL, NULL, NULL, '{"pull":1}', 'local', 'first try', 1800000000001, 1800000000051, 1800000000100);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000002', 'deploy', 1, '{"path":"shop/production","vm":"vm_01k00000000000000000000001","deploy":"dep_01k00000000000000000000001","action":"deploy","commit":"abababababababababababababababababababab","env_revision":2,"rollback":false,"env_before":null}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 6, 6, 'done', NULL, NULL, NULL, '{"deploy":"dep_01k00000000000000000000001","commit":"abababababababababababababababababababab","env_revision":2,"url":"https://shop.example.com","roles":["web"],"run_url":null}', 'local', NULL, 1800000000002, 1800000000052, 1800000000100);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000003', 'provision_vm', 1, '{"environment":"env_01k00000000000000000000002","path":"shop/staging","vm":"vm_01k00000000000000000000002","token":"sec_01k00000000000000000000005","deploy_key":"sec_01k00000000000000000000006","size":{"name":"cpx22","region":"fsn1","cores":2,"dedicated":false,"memory_mib":4096,"disk_gb":80,"arch":"amd64","monthly":{"amount":"7.99","currency":"EUR"},"available":true}}', 'running', 'env_01k00000000000000000000002', NULL, 0, 0, 'worker 1', 1, 1800000015000, 4, 7, 'ordering the server', NULL, NULL, NULL, NULL, 'local', NULL, 1800000000003, 1800000000053, NULL);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000004', 'deploy', 1, '{"path":"shop/production","vm":"vm_01k00000000000000000000001","deploy":"dep_01k00000000000000000000002","action":"redeploy","commit":"abababababababababababababababababababab","env_revision":2,"rollback":false,"env_before":2}', 'running', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, 'worker 1', 2, 1800000015000, 5, 6, 'waiting for the workflow run', NULL, NULL, NULL, NULL, 'key_01k00000000000000000000001', 'new greeting', 1800000000004, 1800000000054, NULL);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000005', 'destroy', 1, '{"environment":"env_01k00000000000000000000003","path":"shop/old","vm":"vm_01k00000000000000000000003","provider":"hetzner"}', 'failed', 'env_01k00000000000000000000003', 'vm_01k00000000000000000000003', 1, 1, NULL, 0, 0, 2, 5, 'the cloud refused', 'cloud_refused', 'the cloud refused', 'try again', NULL, 'local', NULL, 1800000000005, 1800000000055, 1800000000100);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000006', 'resize_vm', 1, '{"vm":"vm_01k00000000000000000000001","provider":"hetzner","server":"42","from":"cpx22","from_monthly":{"amount":"19.49","currency":"EUR"},"disk_gb":80,"to":{"name":"cpx32","region":"fsn1","cores":4,"dedicated":false,"memory_mib":8192,"disk_gb":160,"arch":"amd64","monthly":{"amount":"35.49","currency":"EUR"},"available":true},"upgrade_disk":false,"wanted":{"env_01k00000000000000000000001":"cpx22"}}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 11, 11, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999906, 1799999999956, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000007', 'maintain_vm', 1, '{"vm":"vm_01k00000000000000000000001","provider":"hetzner","server":"42","action":"reboot"}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 9, 9, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999907, 1799999999957, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000008', 'maintain_vm', 1, '{"vm":"vm_01k00000000000000000000001","provider":"hetzner","server":"42","action":"power_on"}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 3, 3, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999908, 1799999999958, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000009', 'maintain_vm', 1, '{"vm":"vm_01k00000000000000000000001","provider":"hetzner","server":"42","action":"power_off"}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 4, 4, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999909, 1799999999959, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000010', 'maintain_vm', 1, '{"vm":"vm_01k00000000000000000000001","provider":"hetzner","server":"42","action":"power_cycle"}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 3, 3, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999910, 1799999999960, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000011', 'manage_domain', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","domain":"shop.example.com","also":null,"before":null,"before_also":null,"address":"203.0.113.7","live":true}', 'succeeded', 'env_01k00000000000000000000001', NULL, 0, 0, NULL, 1, 0, 3, 3, 'done', NULL, NULL, NULL, '{"domain":"shop.example.com"}', 'local', NULL, 1799999999911, 1799999999961, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000021', 'configure_app', 1, '{"path":"shop/production","before":{"id":"env_01k00000000000000000000001","app":"app_01k00000000000000000000001","path":"shop/production","vm":null,"settings":{"size":"cpx22","region":"fsn1","domain":"shop.example.com","port":8080,"health_path":"/up","protected":true},"run":{},"env_revision":2,"created_at":1799999999000},"after":{"id":"env_01k00000000000000000000001","app":"app_01k00000000000000000000001","path":"shop/production","vm":null,"settings":{"size":"cpx22","region":"fsn1","domain":"shop.example.com","port":8080,"health_path":"/up","protected":true},"run":{"response_timeout_s":90},"env_revision":2,"created_at":1799999999000},"moved":null}', 'succeeded', 'env_01k00000000000000000000001', NULL, 0, 0, NULL, 1, 0, 2, 2, 'done', NULL, NULL, NULL, '{"files":[]}', 'local', NULL, 1799999999911, 1799999999961, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000012', 'retire', 1, '{"environment":"env_01k00000000000000000000003","path":"shop/old","vm":"vm_01k00000000000000000000003","provider":"hetzner","keeping":"snapshot","retirement":"op_01k00000000000000000000012","began_at":1,"expires_at":2}', 'succeeded', 'env_01k00000000000000000000003', NULL, 0, 0, NULL, 1, 0, 8, 8, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999912, 1799999999962, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000014', 'restore', 1, '{"environment":"env_01k00000000000000000000003","path":"shop/old","vm":"vm_01k00000000000000000000003","provider":"hetzner","keeping":"snapshot","retirement":"op_01k00000000000000000000012"}', 'succeeded', 'env_01k00000000000000000000003', NULL, 0, 0, NULL, 1, 0, 11, 11, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999913, 1799999999963, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000016', 'adopt_vm', 1, '{"environment":"env_01k00000000000000000000002","path":"shop/staging","vm":"vm_01k00000000000000000000009","token":"sec_01k00000000000000000000008","deploy_key":"sec_01k00000000000000000000009","target":"root@203.0.113.9","login":"root","address":"203.0.113.9","host_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMD","provider":"ssh","server":null,"size":"own","region":"own","arch":"amd64","monthly":{"amount":"7.99","currency":"EUR"},"before":{"provider":"hetzner","size":"cx23","region":"fsn1"},"kept":["port 0.0.0.0:22"]}', 'succeeded', 'env_01k00000000000000000000002', NULL, 0, 0, NULL, 0, 0, 9, 9, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999901, 1799999999951, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000022', 'manage_service', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"add","kind":"postgres","service":"svc_01k00000000000000000000001","secret":"sec_01k00000000000000000000009","version":"17.6","memory_mb":null,"before":null}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 8, 8, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999922, 1799999999972, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000025', 'manage_service', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"upgrade","kind":"postgres","service":"svc_01k00000000000000000000001","secret":"sec_01k00000000000000000000009","version":"17.6","memory_mb":null,"before":["17.5",512]}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 6, 6, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999923, 1799999999973, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000026', 'manage_service', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"restart","kind":"postgres","service":"svc_01k00000000000000000000001","secret":"sec_01k00000000000000000000009","version":"17.6","memory_mb":null,"before":null}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 2, 2, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999924, 1799999999974, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000027', 'remove_service', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","kind":"postgres","service":"svc_01k00000000000000000000001"}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 5, 5, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999925, 1799999999975, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000028', 'control_app', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"restart","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","lock":null}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 2, 2, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999926, 1799999999976, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000029', 'control_app', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"stop","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","lock":null}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 2, 2, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999927, 1799999999977, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000030', 'control_app', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"start","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","lock":null}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 2, 2, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999928, 1799999999978, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000031', 'control_app', 1, '{"environment":"env_01k00000000000000000000001","path":"shop/production","vm":"vm_01k00000000000000000000001","action":"break_lock","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","lock":{"service":"shop-production","by":"vmkit-run-7-1","since":"2026-11-01T10:00:00Z","version":"abc","message":"Automatic deploy lock"}}', 'succeeded', 'env_01k00000000000000000000001', 'vm_01k00000000000000000000001', 0, 0, NULL, 0, 0, 1, 1, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999929, 1799999999979, 1799999999999);
insert into operation (id, kind, version, params, state, environment, vm, undoing, cancel_requested, lease_holder, lease_epoch, lease_expires_at, step, steps, message, error_code, error_message, error_fix, result, caller, reason, created_at, updated_at, ended_at) values ('op_01k00000000000000000000032', 'test_build', 1, '{"path":"shop/production","commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","subject":"Say hello"}', 'succeeded', 'env_01k00000000000000000000001', NULL, 0, 0, NULL, 0, 0, 3, 3, 'done', NULL, NULL, NULL, NULL, 'local', NULL, 1799999999800, 1799999999850, 1799999999999);
CREATE TABLE operation_lock (
    resource text not null,
    operation text not null references operation (id),
    mode text not null check (mode in ('exclusive', 'shared')),
    primary key (resource, operation)
) strict;
insert into operation_lock (resource, operation, mode) values ('env:env_01k00000000000000000000002', 'op_01k00000000000000000000003', 'exclusive');
insert into operation_lock (resource, operation, mode) values ('vm:vm_01k00000000000000000000002', 'op_01k00000000000000000000003', 'exclusive');
insert into operation_lock (resource, operation, mode) values ('env:env_01k00000000000000000000001', 'op_01k00000000000000000000004', 'exclusive');
insert into operation_lock (resource, operation, mode) values ('vm:vm_01k00000000000000000000001', 'op_01k00000000000000000000004', 'shared');
CREATE TABLE step (
    operation text not null references operation (id),
    position integer not null,
    name text not null,
    state text not null check (state in ('started', 'done', 'failed', 'undoing', 'undone', 'undo_failed')),
    attempts integer not null,
    output text,
    error text,
    started_at integer not null,
    ended_at integer,
    primary key (operation, position)
) strict;
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000001', 0, 'commit_files', 'done', 1, '{"commit":"abababababababababababababababababababab"}', NULL, 1800000000001, 1800000000002);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000001', 1, 'open_pull', 'done', 1, '{"pull":1}', NULL, 1800000000002, 1800000000003);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000002', 0, 'commit_config', 'done', 1, '{"files":[],"edited":[]}', NULL, 1800000000002, 1800000000003);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000002', 1, 'grant_access', 'done', 1, '{}', NULL, 1800000000003, 1800000000004);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000002', 2, 'write_env', 'done', 1, '{"revision":2}', NULL, 1800000000004, 1800000000005);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000002', 3, 'dispatch', 'done', 1, '{"run":7001,"url":"https://github.example.com/octo/shop/actions/runs/7001"}', NULL, 1800000000005, 1800000000006);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000002', 4, 'watch', 'done', 1, '{"run":7001}', NULL, 1800000000006, 1800000000007);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000002', 5, 'prove', 'done', 1, '{"url":"https://shop.example.com","roles":["web"]}', NULL, 1800000000007, 1800000000008);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000003', 0, 'prepare', 'done', 1, '{"vm":"vm_01k00000000000000000000002"}', NULL, 1800000000003, 1800000000004);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000003', 1, 'ssh_key', 'done', 1, '["11"]', NULL, 1800000000004, 1800000000005);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000003', 2, 'firewall', 'done', 1, '["12"]', NULL, 1800000000005, 1800000000006);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000003', 3, 'create_server', 'started', 2, NULL, NULL, 1800000000006, NULL);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000004', 0, 'commit_config', 'done', 1, '{"files":[],"edited":[]}', NULL, 1800000000004, 1800000000005);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000004', 1, 'grant_access', 'done', 1, '{}', NULL, 1800000000005, 1800000000006);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000004', 2, 'write_env', 'done', 1, '{"revision":2}', NULL, 1800000000006, 1800000000007);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000004', 3, 'dispatch', 'done', 1, '{"run":7002,"url":"https://github.example.com/octo/shop/actions/runs/7002"}', NULL, 1800000000007, 1800000000008);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000004', 4, 'watch', 'started', 1, NULL, NULL, 1800000000008, NULL);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000005', 0, 'revoke_access', 'undone', 1, NULL, NULL, 1800000000005, 1800000000006);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000005', 1, 'delete_server', 'failed', 1, NULL, 'the cloud refused', 1800000000006, 1800000000007);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000011', 0, 'claim', 'done', 1, '[]', NULL, 1800000000010, 1800000000020);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000011', 1, 'point', 'done', 1, '[]', NULL, 1800000000011, 1800000000021);
insert into step (operation, position, name, state, attempts, output, error, started_at, ended_at) values ('op_01k00000000000000000000011', 2, 'look', 'done', 1, '[]', NULL, 1800000000012, 1800000000022);
CREATE TABLE idempotency (
    tool text not null,
    caller text not null,
    key text not null,
    arguments_hash text not null,
    operation text not null references operation (id),
    created_at integer not null,
    primary key (tool, caller, key)
) strict;
insert into idempotency (tool, caller, key, arguments_hash, operation, created_at) values ('deploy', 'local', 'once', '0000000000000000000000000000000000000000000000000000000000000000', 'op_01k00000000000000000000002', 1800000000000);
CREATE TABLE plan (
    id text primary key,
    action text not null,
    arguments text not null,
    seen text not null,
    body text not null,
    policy text not null check (policy in ('plan', 'human')),
    created_at integer not null,
    expires_at integer not null,
    approved_at integer,
    approved_by text,
    used_by text references operation (id)
) strict;
insert into plan (id, action, arguments, seen, body, policy, created_at, expires_at, approved_at, approved_by, used_by) values ('plan_01k00000000000000000000001', 'provision_vm', '{"environment":"shop/staging"}', '0000000000000000000000000000000000000000000000000000000000000000', '{"summary":"order a `cpx22` server","steps":["making the VM''s keys"],"monthly_before":{"amount":"0","currency":"EUR"},"monthly_after":{"amount":"7.99","currency":"EUR"},"downtime_s":0,"lost":[],"touches":["shop/staging"],"confirm_with":"shop/staging"}', 'plan', 1800000000000, 1800000900000, NULL, NULL, 'op_01k00000000000000000000003');
insert into plan (id, action, arguments, seen, body, policy, created_at, expires_at, approved_at, approved_by, used_by) values ('plan_01k00000000000000000000002', 'destroy', '{"environment":"shop/old","purge":true}', '0000000000000000000000000000000000000000000000000000000000000000', '{"summary":"order a `cpx22` server","steps":["making the VM''s keys"],"monthly_before":{"amount":"0","currency":"EUR"},"monthly_after":{"amount":"7.99","currency":"EUR"},"downtime_s":0,"lost":[],"touches":["shop/staging"],"confirm_with":"shop/staging"}', 'human', 1800000000000, 1800000900000, NULL, NULL, NULL);
CREATE TABLE deploy (
    id text primary key,
    environment text not null references environment (id),
    operation text not null references operation (id),
    action text not null check (action in ('deploy', 'redeploy')),
    commit_sha text not null,
    subject text not null,
    env_revision integer not null,
    rollback_of text references deploy (id),
    state text not null check (state in ('running', 'live', 'failed', 'cancelled')),
    run_id integer,
    run_url text,
    failure text,
    created_at integer not null,
    ended_at integer
) strict;
insert into deploy (id, environment, operation, action, commit_sha, subject, env_revision, rollback_of, state, run_id, run_url, failure, created_at, ended_at) values ('dep_01k00000000000000000000001', 'env_01k00000000000000000000001', 'op_01k00000000000000000000002', 'deploy', 'abababababababababababababababababababab', 'Say hello', 2, NULL, 'live', 7001, 'https://github.example.com/octo/shop/actions/runs/7001', NULL, 1800000000002, 1800000000100);
insert into deploy (id, environment, operation, action, commit_sha, subject, env_revision, rollback_of, state, run_id, run_url, failure, created_at, ended_at) values ('dep_01k00000000000000000000002', 'env_01k00000000000000000000001', 'op_01k00000000000000000000004', 'redeploy', 'abababababababababababababababababababab', 'Say hello', 2, NULL, 'running', 7002, 'https://github.example.com/octo/shop/actions/runs/7002', NULL, 1800000000004, NULL);
CREATE TABLE release (
    id text primary key,
    environment text not null references environment (id),
    deploy text not null unique references deploy (id),
    commit_sha text not null,
    env_revision integer not null,
    created_at integer not null
) strict;
insert into release (id, environment, deploy, commit_sha, env_revision, created_at) values ('rel_01k00000000000000000000001', 'env_01k00000000000000000000001', 'dep_01k00000000000000000000001', 'abababababababababababababababababababab', 2, 1800000000100);
CREATE TABLE key (
    id text primary key,
    name text not null,
    hash blob not null,
    role text not null check (role in ('read', 'deploy', 'admin')),
    environments text not null,
    created_at integer not null,
    expires_at integer,
    last_used_at integer,
    revoked_at integer
) strict;
insert into key (id, name, hash, role, environments, created_at, expires_at, last_used_at, revoked_at) values ('key_01k00000000000000000000001', 'ci', X'0404040404040404040404040404040404040404040404040404040404040404', 'deploy', '["shop/production"]', 1800000000000, 1801000000000, 1800000000009, NULL);
insert into key (id, name, hash, role, environments, created_at, expires_at, last_used_at, revoked_at) values ('key_01k00000000000000000000002', 'old', X'0505050505050505050505050505050505050505050505050505050505050505', 'admin', '[]', 1800000000000, NULL, NULL, 1800000000008);
CREATE TABLE audit (
    id integer primary key,
    at integer not null,
    caller text not null,
    tool text not null,
    arguments text not null,
    outcome text not null,
    reason text
) strict;
insert into audit (id, at, caller, tool, arguments, outcome, reason) values (1, 1800000000000, 'local', 'deploy', '{"environment":"shop/production"}', 'started', NULL);
CREATE TABLE price_list (
    cloud text primary key,
    body text not null,
    seen_at integer not null
) strict;
CREATE TABLE domain_alias (
    name text primary key,
    environment text not null references environment (id)
) strict;
insert into domain_alias (name, environment) values ('www.example.com', 'env_01k00000000000000000000001');
CREATE TABLE dns_record (
    name text not null,
    kind text not null,
    environment text not null references environment (id),
    provider text not null,
    zone text not null,
    provider_id text,
    value text not null,
    made_by text not null references operation (id),
    created_at integer not null,
    primary key (name, kind)
) strict;
insert into dns_record (name, kind, environment, provider, zone, provider_id, value, made_by, created_at) values ('shop.example.com', 'A', 'env_01k00000000000000000000001', 'cloudflare', 'example.com', '00000000000000000000000000000001', '203.0.113.7', 'op_01k00000000000000000000011', 1800000000006);
CREATE TABLE vm_link (
    vm text primary key references vm (id),
    -- The key with which VMKit logs in; its private half is sealed.
    public_key text not null,
    secret text not null references secret (id),
    -- The only host key that is taken, and the one that the agent has announced to put in its place.
    host_key text not null,
    next_host_key text,
    -- The private half of the first boot's host key; none once the agent has replaced it.
    host_secret text references secret (id),
    created_at integer not null
) strict;
CREATE TABLE retirement (
    -- The operation that began it; what it keeps is named after it.
    id text primary key references operation (id),
    environment text not null references environment (id),
    vm text references vm (id),
    keeping text not null check (keeping in ('snapshot', 'park', 'shared')),
    state text not null check (state in ('making', 'kept', 'restored', 'undone', 'purged')),
    snapshot_name text,
    snapshot text,
    size_gb integer,
    monthly_amount text,
    monthly_currency text,
    began_at integer not null,
    -- None where it is kept until somebody decides.
    expires_at integer
) strict;
CREATE TABLE written_file (
    app text not null references app (id),
    path text not null,
    digest text not null,
    content text not null,
    written_at integer not null,
    primary key (app, path, digest)
) strict;
CREATE TABLE adoption (
    environment text not null references environment (id),
    -- As the person named it: `root@203.0.113.7`, `hetzner:4711`.
    target text not null,
    public_key text not null,
    secret text not null references secret (id),
    created_at integer not null,
    primary key (environment, target)
) strict;
CREATE TABLE webhook_delivery (
    id text primary key,
    event text not null,
    action text,
    repo integer not null,
    run integer,
    title text,
    url text,
    received_at integer not null,
    worked_at integer
) strict;
CREATE TABLE service (
    id text primary key,
    environment text not null references environment (id),
    kind text not null check (kind in ('postgres', 'redis', 'meilisearch', 'qdrant')),
    version text not null,
    memory_mb integer,
    -- Its password, sealed: made by VMKit, and shown to nobody.
    secret text not null references secret (id),
    state text not null check (state in ('ordered', 'ready', 'removing')),
    created_at integer not null,
    unique (environment, kind)
) strict;
CREATE UNIQUE INDEX environment_name on environment (app, name) where deleted_at is null;
CREATE INDEX operation_open on operation (state) where ended_at is null;
CREATE INDEX operation_recent on operation (created_at);
CREATE UNIQUE INDEX operation_lock_exclusive on operation_lock (resource) where mode = 'exclusive';
CREATE INDEX deploy_of_environment on deploy (environment, created_at desc);
CREATE INDEX release_of_environment on release (environment, created_at desc);
CREATE INDEX retirement_open on retirement (environment) where state in ('making', 'kept');
CREATE INDEX webhook_open on webhook_delivery (received_at) where worked_at is null;
