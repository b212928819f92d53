#!/usr/bin/env node
// Calls the blog's own Hexo.
'use strict';
const command = process.argv[2];
if (command !== 'g' && command !== 'generate') {
  console.error(`hexo (stand-in): there is no command \`${command}\``);
  process.exit(1);
}
require(require.resolve('hexo', { paths: [process.cwd()] }))(process.cwd());
