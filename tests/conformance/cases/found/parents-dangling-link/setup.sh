mkdir b; ln -s ../d b/link
