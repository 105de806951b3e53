// What Node programs do; prints one line a thing done.
const assert = require('assert');
const { Worker, isMainThread, parentPort } = require('worker_threads');
const { execFileSync, spawn, fork } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');
const zlib = require('zlib');
const { promisify } = require('util');

async function once(emitter, event) {
  return new Promise((resolve, reject) => { emitter.once(event, resolve); emitter.once('error', reject); });
}

const things = {
  async threads() {
    const worker = new Worker(__filename);
    worker.postMessage(6);
    assert.equal(await once(worker, 'message'), 36);
    await worker.terminate();
  },
  async processes() {
    assert.equal(execFileSync('tr', ['a-z', 'A-Z'], { input: 'abc' }).toString(), 'ABC');
    const child = spawn('cat');
    child.stdin.end('piped');
    assert.equal((await once(child.stdout, 'data')).toString(), 'piped');
    const forked = fork(__filename, ['child']);
    assert.equal(await once(forked, 'message'), 'from the child');
  },
  async files() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'a'));
    const file = path.join(folder, 'x');
    await fs.promises.writeFile(file, Buffer.alloc(100000));
    await fs.promises.copyFile(file, file + '2');
    const handle = await fs.promises.open(file, 'r+');
    await handle.sync();
    await handle.close();
    assert.equal((await promisify(zlib.gzip)(fs.readFileSync(file + '2'))).length < 1000, true);
    fs.rmSync(folder, { recursive: true });
  },
  async sockets() {
    const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = net.connect(server.address().port, '127.0.0.1');
    client.setNoDelay(true);
    client.write('echo');
    assert.equal((await once(client, 'data')).toString(), 'echo');
    client.destroy();
    server.close();
  },
  async rest() {
    assert.equal((await promisify(crypto.pbkdf2)('a', 'b', 1000, 16, 'sha256')).length, 16);
    assert.ok('lo' in os.networkInterfaces());
    assert.ok(os.cpus().length >= 0 && os.totalmem() > 0);
    await new Promise((resolve) => setTimeout(resolve, 5));
  },
};

if (!isMainThread) {
  parentPort.once('message', (x) => parentPort.postMessage(x * x));
} else if (process.argv[2] === 'child') {
  process.send('from the child', () => process.disconnect());
} else {
  (async () => {
    for (const [name, thing] of Object.entries(things)) {
      await thing();
      console.log(name);
    }
  })().catch((error) => { console.error(error); process.exit(1); });
}
