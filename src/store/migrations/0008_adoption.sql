-- A machine that exists and is to become the VM of an environment: the key with which VMKit looks at
-- it and sets it up, once a person has put its public half there. Gone when the machine is ours.
create table adoption (
    environment text not null references environment (id),
    -- As the person named it: `root@203.0.113.7`, `hetzner:4711`.
    target text not null,
    public_key text not null,
    secret text not null references secret (id),
    created_at integer not null,
    primary key (environment, target)
) strict;
