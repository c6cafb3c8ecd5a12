"""How qemu-img is told to encrypt a qcow2 image, wherever that is done.

A passphrase of ours is 256 random bits, which nobody finds by trying. So the time that LUKS takes to turn a passphrase
into a key, which protects those that people think up, is the least there is: it would be spent at every boot.

QEMU measures that time in CPU time of its thread. Where the kernel counts it in ticks, a quick measurement comes to
none and QEMU gives up (`UNTIMED`): sha512 takes long enough nearly always, and who calls tries again.
"""

SECRET_ID = "key"
LUKS_OPTIONS = f"encrypt.format=luks,encrypt.key-secret={SECRET_ID},encrypt.iter-time=10,encrypt.hash-alg=sha512"
UNTIMED = "Unable to get accurate CPU usage"
UNTIMED_TRIES = 20
