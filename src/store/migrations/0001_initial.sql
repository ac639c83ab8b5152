-- The first schema. A shipped migration is never edited: a change is a new file.

create table installation (
    only_row integer primary key check (only_row = 1),
    id text not null,
    mode text not null check (mode in ('local', 'gateway')),
    url text,
    key_fingerprint text not null,
    created_at integer not null
) strict;

-- Sealed values that are not env values. The vault binds each to its id and purpose.
create table secret (
    id text primary key,
    purpose text not null,
    sealed blob not null,
    created_at integer not null
) strict;

create table account (
    id text primary key,
    provider text not null unique check (provider in ('hetzner', 'digitalocean', 'github', 'cloudflare')),
    secret text not null references secret (id),
    created_at integer not null
) strict;

create table app (
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
    created_at integer not null,
    unique (repo_id, root)
) strict;

create table vm (
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
) strict;

create table environment (
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
) strict;
create unique index environment_name on environment (app, name) where deleted_at is null;

-- The key that deploys to one VM for one environment; its private half is sealed.
create table deploy_key (
    environment text not null references environment (id),
    vm text not null references vm (id),
    public_key text not null,
    secret text not null references secret (id),
    created_at integer not null,
    primary key (environment, vm)
) strict;

-- Each change of a key is a row; the value at a revision is the newest row up to it.
create table env_var (
    environment text not null references environment (id),
    key text not null,
    revision integer not null,
    class text not null check (class in ('plain', 'secret')),
    sealed blob,
    mark text,
    created_at integer not null,
    primary key (environment, key, revision)
) strict;

create table operation (
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
create index operation_open on operation (state) where ended_at is null;
create index operation_recent on operation (created_at);

create table operation_lock (
    resource text not null,
    operation text not null references operation (id),
    mode text not null check (mode in ('exclusive', 'shared')),
    primary key (resource, operation)
) strict;
create unique index operation_lock_exclusive on operation_lock (resource) where mode = 'exclusive';

create table step (
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

create table idempotency (
    tool text not null,
    caller text not null,
    key text not null,
    arguments_hash text not null,
    operation text not null references operation (id),
    created_at integer not null,
    primary key (tool, caller, key)
) strict;

create table plan (
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

create table deploy (
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
create index deploy_of_environment on deploy (environment, created_at desc);

create table release (
    id text primary key,
    environment text not null references environment (id),
    deploy text not null unique references deploy (id),
    commit_sha text not null,
    env_revision integer not null,
    created_at integer not null
) strict;
create index release_of_environment on release (environment, created_at desc);

create table key (
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

create table audit (
    id integer primary key,
    at integer not null,
    caller text not null,
    tool text not null,
    arguments text not null,
    outcome text not null,
    reason text
) strict;
