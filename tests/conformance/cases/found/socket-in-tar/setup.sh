python3 - <<'P'
def entry(name, mode, ino, uid=0, gid=0, data=b''):
    name = name.encode() + b'\0'
    numbers = [ino, mode, uid, gid, 1, 1, len(data), 0, 0, 0, 0, len(name), 0]
    head = b'070701' + b''.join(b'%08X' % n for n in numbers) + name
    head += b'\0' * (-len(head) % 4) + data
    return head + b'\0' * (-len(head) % 4)
with open('x.cpio', 'wb') as out:
    out.write(entry('d', 0o040755, 1))
    out.write(entry('d/s', 0o140755, 2, 5, 6))
    out.write(entry('d/f', 0o100644, 3, data=b'f\n'))
    out.write(entry('t', 0o141640, 4))
    out.write(entry('TRAILER!!!', 0, 0))
P
