mkdir ../n d
echo x > ../n/x
chmod 700 . ../n
chmod 750 d
