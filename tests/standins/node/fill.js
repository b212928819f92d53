// Fills npm's cache from packages in directories, by way of a registry that has only them:
//     fill.js PACKAGES REGISTRY BLOG
// REGISTRY is the address that the cache's entries are to have; BLOG is an empty directory.
'use strict';
const { execFile, execFileSync } = require('child_process');
const crypto = require('crypto');
const fs = require('fs');
const http = require('http');
const path = require('path');
const [packages, registry, blog] = process.argv.slice(2);

// What the registry says of a package, and the archive. Only the commands of Debian's modules need
// more than there is here.
function pack(directory) {
  const json = path.join(directory, 'package.json');
  const about = JSON.parse(fs.readFileSync(json, 'utf8'));
  const there = ([name]) => fs.existsSync(path.join(packages, name));
  about.dependencies = Object.fromEntries(Object.entries(about.dependencies ?? {}).filter(there));
  fs.writeFileSync(json, JSON.stringify(about));
  const name = execFileSync('npm', ['pack', '--silent', directory], { cwd: '/tmp' });
  const tarball = fs.readFileSync(path.join('/tmp', name.toString().trim()));
  const integrity = 'sha512-' + crypto.createHash('sha512').update(tarball).digest('base64');
  const { version } = about;
  const dist = { tarball: `${registry}${about.name}/-/${version}.tgz`, integrity };
  const versions = { [version]: { ...about, dist } };
  const packument = { name: about.name, 'dist-tags': { latest: version }, versions };
  return [
    [`${registry}${about.name}`, Buffer.from(JSON.stringify(packument))],
    [dist.tarball, tarball],
  ];
}

const served = new Map(
  fs.readdirSync(packages).flatMap((name) => pack(path.join(packages, name))));

// npm takes it for its proxy, so it asks for whole addresses.
const server = http.createServer((request, response) => {
  const body = served.get(request.url);
  response.writeHead(body ? 200 : 404, { 'cache-control': 'public, max-age=31536000' });
  response.end(body);
});

server.listen(0, '127.0.0.1', async () => {
  const proxy = `http://127.0.0.1:${server.address().port}`;
  const npm = (...args) => new Promise((done, fail) => {
    const flags = ['--offline=false', `--proxy=${proxy}`];
    execFile('npm', [...args, ...flags], { cwd: blog }, (error) => error ? fail(error) : done());
  });
  await npm('install', 'hexo', 'hexo-renderer-ejs', 'hexo-renderer-marked');
  await npm('install', '--global', '--prefix', '/tmp/global', 'hexo-cli');
  server.close();
});
