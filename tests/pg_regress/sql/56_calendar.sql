-- Billing periods, proration and splits: pure functions, on any data.
\set SHOW_CONTEXT never
SET timezone = 'UTC';

-- From an anchor, with the month's last day where it has no 31st; and of the calendar.
SELECT * FROM meterflow.billing_periods('2026-01-31 00:00Z', 'month', 1, false, 'UTC', '2026-01-31', '2026-06-01');
SELECT * FROM meterflow.billing_periods('2024-02-29 12:00Z', 'year', 1, false, 'UTC', '2024-02-29', '2028-03-01');
SELECT * FROM meterflow.billing_periods('2026-08-19 13:00Z', 'quarter', 1, true, 'UTC', '2026-01-01', '2027-01-01');
SELECT * FROM meterflow.billing_periods('2026-08-19 13:00Z', 'week', 2, true, 'UTC', '2026-08-16', '2026-08-18');
SELECT count(*) AS of_an_empty_stretch FROM meterflow.billing_periods('2026-01-01', 'day', 1, true, 'UTC', '2026-01-02', '2026-01-02');

-- In the customer's zone: the day of the change of the clock, and one that the zone skipped.
SELECT number, period_start, period_end, period_end - period_start AS length
  FROM meterflow.billing_periods('2026-03-01', 'day', 1, true, 'Europe/Berlin', '2026-03-28 12:00Z', '2026-03-30 12:00Z');
SELECT number, period_start AT TIME ZONE 'America/New_York' AS local_start
  FROM meterflow.billing_periods('2026-01-31 05:00Z', 'month', 1, false, 'America/New_York', '2026-01-31 05:00Z', '2026-05-01');
SELECT number, period_start AT TIME ZONE 'Pacific/Apia' AS local_start
  FROM meterflow.billing_periods('2011-12-29 10:00Z', 'day', 1, false, 'Pacific/Apia', '2011-12-29 10:00Z', '2012-01-01 10:00Z');

-- One period, by a time in it; numbers are negative before the anchor.
SELECT * FROM meterflow.billing_period('2026-01-31 00:00Z', 'month', 1, false, 'UTC', '2026-02-28');
SELECT * FROM meterflow.billing_period('2026-01-31 00:00Z', 'month', 1, false, 'UTC', '2025-02-27 23:59:59.999999');
SELECT count(*) AS of_null FROM meterflow.billing_period('2026-01-31', 'month', 1, NULL, 'UTC', '2026-02-28');

-- PostgreSQL's own arithmetic agrees over a century of months.
SELECT count(*) AS months, count(*) FILTER (WHERE period_start <> timestamp '2000-01-31 09:30' + number * interval '1 month') AS differ
  FROM meterflow.billing_periods('2000-01-31 09:30Z', 'month', 1, false, 'UTC', '2000-01-31 09:30Z', '2100-01-01');

-- What a piece pays; pieces add up to the last digit.
SELECT method, meterflow.prorate(31, '2026-03-15 18:00Z', '2026-04-01', '2026-03-01', '2026-04-01', method) AS rest,
       meterflow.prorate(31, '2026-03-01', '2026-03-15 18:00Z', '2026-03-01', '2026-04-01', method) AS used
  FROM unnest(ARRAY['second', 'day', 'ended_day', 'day_30', 'none']) AS method;
SELECT sum(meterflow.prorate(100, at, at + interval '1 day', '2026-01-01', '2026-02-01')) AS whole,
       min(meterflow.prorate(100, at, at + interval '1 day', '2026-01-01', '2026-02-01')) AS day
  FROM generate_series('2026-01-01'::timestamptz, '2026-01-31', '1 day') AS at;
SELECT meterflow.prorate(31, '2026-03-15 01:00Z', '2026-04-01', '2026-03-01', '2026-04-01', 'day', 'America/Los_Angeles') AS from_the_14th_there;
SELECT meterflow.prorate(NULL, '2026-03-15', '2026-04-01', '2026-03-01', '2026-04-01') IS NULL AS null_in_null_out;

-- Money over lines.
SELECT meterflow.split_amount(10, '{1,1,1}', 'USD') AS usd, meterflow.split_amount(10, '{1,1,1}', 'JPY') AS jpy,
       meterflow.split_amount(-0.01, '{19.99,20}', 'EUR') AS refund, meterflow.split_amount(0, '{0,0}', 'EUR') AS nothing,
       meterflow.split_amount(5, '{0,7}', 'KWD') AS kwd, meterflow.split_amount(0, '{}', 'EUR') AS nobody;

-- What can't be answered is refused, and says why.
SELECT * FROM meterflow.billing_period('2026-01-01', 'fortnight', 1, true, 'UTC', '2026-01-01');
SELECT * FROM meterflow.billing_period('2026-01-01', 'month', 0, true, 'UTC', '2026-01-01');
SELECT * FROM meterflow.billing_period('2026-01-01', 'month', 1, true, 'Mars/Olympus', '2026-01-01');
SELECT * FROM meterflow.billing_period('2026-01-01', 'month', 1, true, 'UTC', 'infinity');
SELECT * FROM meterflow.billing_period('-infinity', 'month', 1, true, 'UTC', '2026-01-01');
SELECT * FROM meterflow.billing_periods('2026-01-01', 'day', 1, true, 'UTC', '2026-01-01', 'infinity');
SELECT meterflow.prorate(1, '2026-01-01', '2026-01-02', '2026-02-01', '2026-02-01');
SELECT meterflow.prorate(1, '2026-01-01', '2026-01-02', '2026-01-01', '2026-02-01', 'hour');
SELECT meterflow.prorate(1, '2026-01-01', '2026-01-02', '2026-01-01', '2026-02-01', 'day', 'Nowhere');
SELECT meterflow.prorate('NaN', '2026-01-01', '2026-01-02', '2026-01-01', '2026-02-01');
SELECT meterflow.prorate(1e51, '2026-01-01', '2026-01-02 00:00:00.000001', '2026-01-01', '2026-02-01');
SELECT meterflow.split_amount(10.005, '{1,1}', 'USD');
SELECT meterflow.split_amount(10, '{1,-1}', 'USD');
SELECT meterflow.split_amount(10, '{0,0}', 'USD');
SELECT meterflow.split_amount(10, '{1,NULL}', 'USD');
SELECT meterflow.split_amount(10, '{1,NaN}', 'USD');
SELECT meterflow.split_amount(10, '{1}', 'usd');
SELECT meterflow.split_amount(1e50, '{1e28,1e-20}', 'USD');
