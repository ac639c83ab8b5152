-- VMs to which VMKit opens the link itself, over SSH. A VM without a row dials out.
create table vm_link (
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
