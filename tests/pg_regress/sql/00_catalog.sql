-- The extension as the catalogue shows it: \d+ and \df+ are its documentation, and no function trusts the caller's path.
CREATE TEMPORARY VIEW members AS
  SELECT d.classid, d.objid, (pg_identify_object(d.classid, d.objid, 0)).*, obj_description(d.objid, d.classid::regclass::name) AS comment
    FROM pg_depend AS d
   WHERE d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'meterflow')
     -- Row types and arrays come with tables and types (and are members themselves since PostgreSQL 18).
     AND NOT EXISTS (SELECT FROM pg_type AS t WHERE (d.classid, d.objid) = ('pg_type'::regclass, t.oid) AND (t.typrelid <> 0 OR t.typcategory = 'A'));

-- Tables, views, types, functions and aggregates without a comment: none.
SELECT type, identity FROM members WHERE type IN ('table', 'view', 'type', 'function', 'procedure', 'aggregate', 'schema') AND comment IS NULL ORDER BY type, identity COLLATE "C";
SELECT identity, comment FROM members WHERE length(comment) < 10 OR comment !~ '\.$';
SELECT obj_description(oid, 'pg_extension') IS NOT NULL AS extension_has_one FROM pg_extension WHERE extname = 'meterflow';
-- All there is lives in the schema of the extension.
SELECT type, identity FROM members WHERE schema <> 'meterflow' AND type <> 'schema' OR schema IS NULL AND type NOT IN ('schema', 'cast', 'trigger', 'default value');

-- Functions in SQL and PL/pgSQL have a search_path of their own, or a body that was bound when they were made: that needs
-- none, and with one the planner could not inline it. Procedures that commit set it in each transaction.
SELECT p.oid::regprocedure AS function, l.lanname, p.prosqlbody IS NOT NULL AS bound
  FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang JOIN members AS m ON (m.classid, m.objid) = ('pg_proc'::regclass, p.oid)
 WHERE l.lanname IN ('sql', 'plpgsql') AND EXISTS (SELECT FROM unnest(p.proconfig) AS c WHERE c LIKE 'search\_path=%') = (p.prosqlbody IS NOT NULL)
   AND NOT (p.prokind = 'p' AND p.prosrc LIKE '%pg_catalog.set_config(''search_path'', ''pg_catalog, pg_temp'', true)%')
 ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT p.oid::regprocedure AS with_another_path FROM pg_proc AS p, unnest(p.proconfig) AS c
 WHERE p.pronamespace = 'meterflow'::regnamespace AND c LIKE 'search\_path=%' AND c <> 'search_path=pg_catalog, pg_temp';
-- What runs with its owner's rights.
SELECT p.oid::regprocedure AS security_definer FROM pg_proc AS p WHERE p.pronamespace = 'meterflow'::regnamespace AND p.prosecdef;
-- Nothing that writes is said to be safe in a parallel worker.
SELECT p.oid::regprocedure AS safe_writer FROM pg_proc AS p WHERE p.pronamespace = 'meterflow'::regnamespace AND p.provolatile = 'v' AND p.proparallel <> 'u';

-- Tenants lead: every unique index of a table that has tenant_id begins with it.
SELECT i.indexrelid::regclass AS not_by_tenant
  FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attname = 'tenant_id' JOIN pg_class AS c ON c.oid = i.indrelid
 WHERE c.relnamespace = 'meterflow'::regnamespace AND i.indisunique AND i.indkey[0] <> a.attnum ORDER BY c.relname COLLATE "C";
-- Money and quantities are numeric: no column and no argument is a float, but how long a job took.
SELECT a.attrelid::regclass AS relation, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'meterflow'::regnamespace AND a.attnum > 0 AND a.atttypid IN ('float4'::regtype, 'float8'::regtype, 'money'::regtype);
SELECT p.oid::regprocedure AS with_a_float FROM pg_proc AS p
 WHERE p.pronamespace = 'meterflow'::regnamespace AND ('float8'::regtype = ANY (p.proargtypes) OR p.prorettype IN ('float4'::regtype, 'float8'::regtype));
-- What the extension keeps is in a dump: every table but those of its own workings.
SELECT c.oid::regclass AS not_dumped FROM pg_class AS c JOIN members AS m ON (m.classid, m.objid) = ('pg_class'::regclass, c.oid)
 WHERE c.relkind IN ('r', 'p', 'S') AND c.oid <> ALL (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'meterflow') ORDER BY c.relname COLLATE "C";
-- Settings: each with a description.
SELECT name, setting, unit, context FROM pg_settings WHERE name LIKE 'meterflow.%' ORDER BY name COLLATE "C";
SELECT name FROM pg_settings WHERE name LIKE 'meterflow.%' AND coalesce(short_desc, '') = '';
-- A misspelt one is refused.
SET meterflow.tenannt = 'x';
