// The smoke test of the runbook, for k6: is the service fit to take traffic?
//
//   k6 run -e BASE_URL=http://127.0.0.1:8080 -e TOKEN=... reference/ops/smoke.js
//
// It ends with 99 if a threshold is missed: more than 1 % errors, p95 above 300 ms, a failed check.
// With a token of an editor (and an organisation that is there) it also writes, in rows of its own
// that it removes. Without TOKEN only /health, /ready and the refusal of strangers are tried.

import http from 'k6/http';
import { check, group } from 'k6';

const base = __ENV.BASE_URL || 'http://127.0.0.1:8080';
const token = __ENV.TOKEN || '';
const bearer = { headers: { Authorization: `Bearer ${token}` } };
const json = { headers: { ...bearer.headers, 'Content-Type': 'application/json' } };

export const options = {
  scenarios: {
    // A rate, not a number of users: a service that becomes slow must not get fewer requests.
    steady: {
      executor: 'constant-arrival-rate',
      rate: Number(__ENV.RATE || 20),
      timeUnit: '1s',
      duration: __ENV.DURATION || '30s',
      preAllocatedVUs: 20,
      maxVUs: 100,
    },
  },
  thresholds: {
    checks: ['rate==1'],
    http_req_failed: ['rate<0.01'],
    'http_req_duration{kind:read}': ['p(95)<300'],
    'http_req_duration{kind:write}': ['p(95)<500'],
    dropped_iterations: ['count==0'],
  },
};

const tagged = (params, kind, name) => ({ ...params, tags: { kind, name } });
const parsed = (response) => {
  try {
    return response.json();
  } catch (_) {
    return {};
  }
};

function state() {
  const health = http.get(`${base}/health`, tagged({}, 'read', 'health'));
  check(health, { 'health is 200': (r) => r.status === 200 });
  const ready = http.get(`${base}/ready`, tagged({}, 'read', 'ready'));
  check(ready, { 'ready is 200': (r) => r.status === 200 });
}

function strangers() {
  const expected = { responseCallback: http.expectedStatuses(401) };
  const nobody = http.get(`${base}/comps`, tagged(expected, 'read', 'nobody'));
  const forger = http.get(
    `${base}/comps`,
    tagged({ ...expected, headers: { Authorization: 'Bearer e30.e30.e30' } }, 'read', 'forger'),
  );
  check(nobody, { 'no token is 401': (r) => r.status === 401 });
  check(forger, { 'a forged token is 401': (r) => r.status === 401 });
}

function reads() {
  for (const table of ['buildings', 'comps', 'tims', 'reports']) {
    const list = http.get(`${base}/${table}?limit=20`, tagged(bearer, 'read', table));
    check(list, {
      'a list is 200': (r) => r.status === 200,
      'a list has rows': (r) => Array.isArray(parsed(r).data),
    });
  }
}

function writes() {
  const body = JSON.stringify({ company: `smoke ${__VU}-${__ITER}` });
  const made = http.post(`${base}/tims`, body, tagged(json, 'write', 'create'));
  if (!check(made, { 'a row is made': (r) => r.status === 201 })) return;
  const row = `${base}/tims/${parsed(made).id}`;
  const changed = http.patch(row, '{"status":"lost"}', tagged(json, 'write', 'change'));
  check(changed, { 'a row is changed': (r) => r.status === 200 });
  const read = http.get(row, tagged(bearer, 'read', 'row'));
  check(read, { 'a change is seen at once': (r) => parsed(r).status === 'lost' });
  const removed = http.del(row, null, tagged(bearer, 'write', 'delete'));
  check(removed, { 'a row is removed': (r) => r.status === 204 });
}

export default function smoke() {
  group('state', state);
  group('strangers', strangers);
  if (!token) return;
  group('reads', reads);
  group('writes', writes);
}
