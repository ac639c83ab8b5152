-- The cloud that an environment's size and region belong to; null before there was a second one.
alter table environment add column provider text;
