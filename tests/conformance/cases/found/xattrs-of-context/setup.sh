mkdir -p t/d
echo f > t/f
echo g > t/d/g
python3 - <<'P'
import os
os.setxattr('t/f', 'user.note', b'hello')
os.setxattr('t/f', 'trusted.note', b'hello')
os.setxattr('t/f', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
os.setxattr('t/d', 'user.dir', b'd')
os.setxattr('t/d/g', 'user.long', b'x' * 300)
P
