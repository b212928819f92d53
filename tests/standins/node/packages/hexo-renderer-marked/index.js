'use strict';
const { marked } = require('marked');
exports['.md'] = (text) => marked.parse(text);
