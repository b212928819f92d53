//! Document 002, the blog: pages made by Node, served by nginx.

use super::{Site, assert_fraction, seed};

#[test]
fn a_blog_without_what_made_it() {
    let site = Site::with(&["node", "nginx"]);
    let context = seed("002/hexo");
    site.build(&context, "Dockerfile.single", "blog:single");
    site.build(&context, "Dockerfile", "blog");
    for (image, pages) in [("blog:single", "/var/www/html"), ("blog", "/usr/share/nginx/html")] {
        let index = site.prints(image, &["cat", &format!("{pages}/index.html")]);
        assert!(index.contains("<h1>Multi-stage images</h1>"), "{image}: {index}");
        assert!(index.contains("Only the <em>generated</em> pages"), "{image}: {index}");
        assert_eq!(site.builder.inspect(image)["Author"], "xiaowangc<780312916@qq.com>");
    }
    let files = site.prints("blog", &["ls", "/usr/share/nginx/html"]);
    for name in ["google319b15f7fe4c4ac3.html", "sogousiteverification.txt", "multi-stage"] {
        assert!(files.lines().any(|line| line == name), "{name} is not among {files}");
    }
    assert_eq!(site.builder.env("blog", "TZ").as_deref(), Some("Asia/Shanghai"));
    // 72 MB and 1.31 GB, with the document's images.
    assert_fraction(&site, "blog", "blog:single", 25);
}

#[test]
fn nginx_serves_the_pages() {
    let site = Site::with(&["node", "nginx"]);
    site.build(&seed("002/hexo"), "Dockerfile", "blog");
    let page = site.serves("blog", "nginx -g 'daemon off;'", 80);
    assert!(page.contains("<title>A blog</title>"), "{page}");
}
