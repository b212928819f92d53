mkdir -p ../www t/d
cat > t/Dockerfile <<END
FROM $CONF_REGISTRY/conf/busybox:1
COPY . /o
END
echo x > t/d/x
echo x > t/ignored
echo ignored > t/.dockerignore
chmod 4755 t/d/x
chmod 2750 t/d
tar -C t --owner=5 --group=6 -czf ../www/context.tar.gz Dockerfile d ignored .dockerignore
