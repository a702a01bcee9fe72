-- Makes this session see what ALTER SYSTEM has set: a reload is signalled, and arrives when it does. Takes :setting and
-- :value; comes back when the setting has that value. (`\i` in `\if` is psql's only loop.)
\set ECHO none
SELECT pg_reload_conf() AS reloaded \gset
SELECT current_setting(:'setting') = :'value' AS arrived, pg_sleep(0.02)::text AS slept \gset
\if :arrived
  \set ECHO all
\else
  \i :settings
\endif
