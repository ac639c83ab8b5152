-- What each cloud sold when it was last asked: shown with its age, and while the cloud is away.
create table price_list (
    cloud text primary key,
    body text not null,
    seen_at integer not null
) strict;
