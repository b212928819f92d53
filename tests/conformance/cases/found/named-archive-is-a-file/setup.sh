mkdir -p ../www t
echo x > t/x
tar -C t --owner=5 --group=6 --mtime=@1600000000 -cf ../www/n.tar x
