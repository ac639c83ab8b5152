-- A second name of an environment, beside the one in its settings: `www.example.com` beside
-- `example.com`. A name belongs to one environment.
create table domain_alias (
    name text primary key,
    environment text not null references environment (id)
) strict;

-- A DNS record of ours. The row is there before the record is; where the provider keeps no mark on a
-- record, it alone says that the record is ours.
create table dns_record (
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
