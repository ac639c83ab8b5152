-- An address of a VM's own, which survives its server.
alter table vm add column address_id text;
alter table vm add column ipv6 text;
-- Where a VM rests that is `ready` and yet does not run; null while it runs. A column beside `state`,
-- since SQLite cannot change a check without building the table anew.
alter table vm add column rest text check (rest in ('parked', 'kept'));

-- A destroy that can be undone: what is kept of it, and until when. Written before anything is made.
create table retirement (
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
create index retirement_open on retirement (environment) where state in ('making', 'kept');
