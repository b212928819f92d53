mkdir -p ../n/d
echo x > ../n/d/x
chmod 700 ../n
