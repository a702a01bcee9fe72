-- Makes this session see what ALTER SYSTEM has set: a reload is signalled, and arrives when it does. Takes :setting and
-- :value; comes back when the setting has that value. To be called with ECHO none, for it may take several rounds.
SELECT pg_reload_conf() AS reloaded \gset
SELECT current_setting(:'setting') = :'value' AS arrived, pg_sleep(0.02)::text AS slept \gset
\if :arrived
\else
  \i :settings
\endif
