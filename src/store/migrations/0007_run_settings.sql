-- How an environment's app is built and run, as far as somebody chose: JSON.
alter table environment add column run text not null default '{}';
-- Whether a pull request of ours is merged by us where the repo's rules allow; `changes` says `pr` then.
alter table app add column auto_merge integer not null default 0 check (auto_merge in (0, 1));

-- What we wrote into the repo, so that a person's edit can be told from ours and both be kept. The
-- digests in `app.written` are older, and may name contents that are not here.
create table written_file (
    app text not null references app (id),
    path text not null,
    digest text not null,
    content text not null,
    written_at integer not null,
    primary key (app, path, digest)
) strict;
