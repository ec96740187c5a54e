"""Print the inotify events of many operations on files: the output is the same wherever inotify is Linux's."""

# ruff: noqa
import ctypes, os, struct, sys, select, fcntl
libc=ctypes.CDLL(None,use_errno=True)
d='/tmp/inot.%d'%os.getpid(); os.mkdir(d); os.chdir(d)
N={1:'ACCESS',2:'MODIFY',4:'ATTRIB',8:'CLOSE_WRITE',16:'CLOSE_NOWRITE',32:'OPEN',64:'MOVED_FROM',128:'MOVED_TO',256:'CREATE',512:'DELETE',1024:'DELETE_SELF',2048:'MOVE_SELF',0x4000:'Q_OVERFLOW',0x8000:'IGNORED',0x40000000:'ISDIR',0x2000:'UNMOUNT'}
fd=libc.inotify_init1(os.O_NONBLOCK)
def add(p,m=0xfff,f=None):
    r=libc.inotify_add_watch(fd if f is None else f,p.encode(),ctypes.c_uint(m)); return r if r>=0 else os.strerror(ctypes.get_errno())
cook={}
def show(what):
    out=[]
    while 1:
        try: b=os.read(fd,4096)
        except BlockingIOError: break
        i=0
        while i<len(b):
            wd,m,c,l=struct.unpack_from('iIII',b,i); n=b[i+16:i+16+l].rstrip(b'\0').decode(); i+=16+l
            if c: c=cook.setdefault(c,len(cook)+1)
            out.append((wd,'|'.join(v for k,v in N.items() if m&k),c,n,l))
    print(what); [print('   ',o) for o in out]
print(add('.')); show('none')
f=os.open('a',os.O_CREAT|os.O_RDWR,0o644); show('create')
os.write(f,b'hello'); show('write'); os.write(f,b'x');os.write(f,b'x'); show('2 writes merge')
os.lseek(f,0,0); os.read(f,10); show('read'); os.ftruncate(f,2); show('ftruncate'); os.close(f); show('close')
print(add('a')); f=os.open('a',os.O_WRONLY|os.O_TRUNC); show('trunc'); os.write(f,b'zz'); os.close(f); show('w')
os.chmod('a',0o600); os.utime('a',(1,2)); os.truncate('a',1); show('attr')
os.link('a','b'); show('link'); os.rename('b','c'); show('rename'); os.mkdir('d'); os.rename('a','d/a'); show('move out'); os.rename('d/a','a'); show('in')
os.symlink('a','s'); os.unlink('s'); os.mkfifo('p'); os.unlink('p'); show('nodes')
os.unlink('c'); show('unlink c'); f=os.open('a',os.O_RDONLY); os.unlink('a'); show('unlink open'); os.close(f); show('close deleted')
os.listdir('d'); show('listdir'); print(add('d')); os.rmdir('d'); show('rmdir')
open('x','w').write('1'); open('y','w').write('2'); show('xy'); print(add('y',0x400|0x4|0x2)); os.rename('x','y'); show('replace')
print(add('y',0x1000000|0xfff), add('y',0), add('zz'), add('y',0x30000000|2), add('y',0x10000000|2), libc.inotify_rm_watch(fd,77), libc.inotify_rm_watch(fd,1)); show('rm')
wd=add('y',0x80000000|2); open('y','a').write('k'); show('oneshot')
print(os.readlink('/proc/self/fd/%d'%fd)); 
f2=os.open('y',os.O_WRONLY); add('.',2); p=select.poll(); p.register(fd,1); print(p.poll(0)); os.write(f2,b'late'); print([e for _,e in p.poll(2000)])
print(struct.unpack('i',fcntl.ioctl(fd,0x541b,b'\0'*4)));
try: os.read(fd,8)
except OSError as e: print(e.errno)
show('late'); print([e for _,e in p.poll(0)])
