// Cloudflare's own client for Node on the API at argv[2] (a package at argv[3]): prints what it
// sees there, after it has changed it if argv[4] is "change".
const Cloudflare = require(process.argv[3]);

(async () => {
  const client = new Cloudflare({
    apiToken: 'TOKEN-CANARY', baseURL: process.argv[2] + '/client/v4', maxRetries: 0,
  });
  const account = { account_id: 'acc' };
  const tunnels = client.zeroTrust.tunnels.cloudflared;
  const recordOf = async () => {
    const found = [];
    for await (const each of client.dns.records.list(
      { zone_id: 'zone', name: { exact: 'db.example.com' }, type: 'A' })) found.push(each);
    if (found.length !== 1) throw new Error('there are ' + found.length + ' records');
    return found[0];
  };
  if (process.argv[4] === 'change') {
    const { config } = await tunnels.configurations.get('tun', account);
    config.ingress[0].service = 'http://client:1';
    await tunnels.configurations.update('tun', { ...account, config });
    const record = await recordOf();
    await client.dns.records.edit(record.id, { zone_id: 'zone', content: '198.51.100.77' });
    const { origins } = await client.loadBalancers.pools.get('p1', account);
    origins[0].address = '198.51.100.78';
    await client.loadBalancers.pools.edit('p1', { ...account, origins });
    await tunnels.connections.delete('tun', { ...account, client_id: 'c1' });
  }
  const connectors = [];
  for await (const each of tunnels.connections.get('tun', account)) {
    connectors.push({ id: each.id, connections: each.conns.length });
  }
  process.stdout.write(JSON.stringify({
    config: (await tunnels.configurations.get('tun', account)).config,
    dns: await recordOf(),
    pool: await client.loadBalancers.pools.get('p1', account),
    connectors,
  }));
})().catch((error) => { console.error(error); process.exit(1); });
