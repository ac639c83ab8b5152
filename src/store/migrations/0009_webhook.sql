-- What GitHub told us by a webhook: written before it is answered, and kept for some days by its id,
-- since GitHub may send the same again.
create table webhook_delivery (
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
create index webhook_open on webhook_delivery (received_at) where worked_at is null;
