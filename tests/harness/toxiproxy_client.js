// Uses every call of Toxiproxy's client for Node on the API at argv[2], with a real dependency at
// argv[3], and ends with 0 if each did what its documentation says.
const { Toxiproxy } = require(process.argv[4]);
const assert = require('assert');
const net = require('net');

const ask = (listen) => new Promise((resolve) => {
  const [host, port] = listen.split(':');
  const start = Date.now();
  const socket = net.connect(Number(port), host);
  let got = '';
  socket.on('data', (data) => { got += data; });
  socket.on('error', (error) => resolve({ error: error.code }));
  socket.on('close', () => resolve({ got, took: Date.now() - start }));
});

(async () => {
  const client = new Toxiproxy('http://' + process.argv[2]);
  const upstream = process.argv[3];
  assert.match(await client.getVersion(), /"version":"2\./);

  const proxy = await client.createProxy({ name: 'dep', listen: '127.0.0.1:0', upstream });
  assert.strictEqual(proxy.enabled, true);
  assert.strictEqual((await ask(proxy.listen)).got, 'hello');

  const latency = await proxy.addToxic({
    name: 'late', type: 'latency', stream: 'downstream', toxicity: 1,
    attributes: { latency: 300, jitter: 0 },
  });
  assert.strictEqual(latency.attributes.latency, 300);
  assert.ok((await ask(proxy.listen)).took >= 300);
  const changed = await latency.update({
    name: 'late', type: 'latency', stream: 'downstream', toxicity: 1,
    attributes: { latency: 1, jitter: 0 },
  });
  assert.strictEqual(changed.attributes.latency, 1);
  assert.strictEqual((await proxy.getToxic('late')).type, 'latency');
  await latency.remove();
  await assert.rejects(proxy.getToxic('late'), /404/);

  await proxy.addToxic({
    name: 'rst', type: 'reset_peer', stream: 'downstream', toxicity: 1, attributes: { timeout: 0 },
  });
  assert.strictEqual((await ask(proxy.listen)).error, 'ECONNRESET');
  const down = await proxy.update({ enabled: false, listen: proxy.listen, upstream });
  assert.strictEqual(down.enabled, false);
  assert.strictEqual((await ask(proxy.listen)).error, 'ECONNREFUSED');
  await client.reset();
  assert.strictEqual((await ask(proxy.listen)).got, 'hello');

  const populated = await client.populate([{ name: 'other', listen: '127.0.0.1:0', upstream }]);
  assert.strictEqual((await ask(populated.other.listen)).got, 'hello');
  assert.deepStrictEqual(Object.keys(await client.getAll()).sort(), ['dep', 'other']);
  assert.strictEqual((await client.get('dep')).listen, proxy.listen);
  await proxy.remove();
  await assert.rejects(client.get('dep'), /404/);
  assert.strictEqual((await ask(proxy.listen)).error, 'ECONNREFUSED');
})().catch((error) => { console.error(error); process.exit(1); });
