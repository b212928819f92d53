// As much of Hexo as `hexo generate` needs for a blog: posts in Markdown, a theme of layouts, a
// page for each post and one with all of them.
'use strict';
const fs = require('fs');
const path = require('path');
const yaml = require('js-yaml');

// The renderers among the blog's dependencies, by the extension of what they take.
function renderers(blog) {
  const about = JSON.parse(fs.readFileSync(path.join(blog, 'package.json'), 'utf8'));
  const names = Object.keys(about.dependencies).filter((name) => name.startsWith('hexo-renderer-'));
  return Object.assign({}, ...names.map((name) => require(require.resolve(name, { paths: [blog] }))));
}

function post(file, render) {
  const [, head, text] = /^---\n([^]*?)\n---\n([^]*)$/.exec(fs.readFileSync(file, 'utf8'));
  const slug = path.basename(file, '.md');
  return { ...yaml.load(head), slug, content: render['.md'](text) };
}

module.exports = function generate(blog) {
  const config = yaml.load(fs.readFileSync(path.join(blog, '_config.yml'), 'utf8'));
  const render = renderers(blog);
  const layouts = path.join(blog, 'themes', config.theme, 'layout');
  const layout = (name, locals) =>
    render['.ejs'](fs.readFileSync(path.join(layouts, `${name}.ejs`), 'utf8'), locals);
  const page = (to, name, page) => {
    const file = path.join(blog, 'public', to, 'index.html');
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const body = layout(name, { config, page });
    fs.writeFileSync(file, layout('layout', { config, page, body }));
    console.log(`INFO  Generated: ${path.join(to, 'index.html')}`);
  };
  const source = path.join(blog, 'source/_posts');
  const posts = fs.readdirSync(source).filter((name) => name.endsWith('.md')).sort()
    .map((name) => post(path.join(source, name), render));
  page('', 'index', { posts: { each: (visit) => posts.forEach(visit) } });
  posts.forEach((post) => page(config.permalink.replace(':title', post.slug), 'post', post));
};
