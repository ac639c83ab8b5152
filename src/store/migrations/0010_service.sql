-- Services beside an app, such as its database. One of a kind in an environment; a row goes when what
-- it names is gone.
create table service (
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
