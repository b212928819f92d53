'use strict';
const ejs = require('ejs');
exports['.ejs'] = (text, locals) => ejs.render(text, locals);
