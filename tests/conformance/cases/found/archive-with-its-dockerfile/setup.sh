mkdir -p t/d t/real
cat > t/real/My <<END
FROM $CONF_REGISTRY/conf/busybox:1
COPY . /o
END
ln -s /real/My t/d/My
echo x > t/x
echo x > t/d/My.dockerignore
echo x > t/.dockerignore
tar -C t --owner=5 --group=6 -czf ../in.tar.gz d real x .dockerignore
