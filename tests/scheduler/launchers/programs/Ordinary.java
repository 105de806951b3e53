import java.io.*;
import java.net.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/** What Java programs do; prints one line a thing done. */
public class Ordinary {
    static void check(boolean holds, String what) {
        if (!holds) throw new AssertionError(what);
        System.out.println(what);
    }

    public static void main(String[] arguments) throws Exception {
        check(LongStream.range(0, 1_000_000).parallel().sum() == 499999500000L, "parallel");

        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Integer>> squares = new ArrayList<>();
        for (int i = 0; i < 50; i++) { int x = i; squares.add(pool.submit(() -> x * x)); }
        int sum = 0;
        for (Future<Integer> each : squares) sum += each.get();
        pool.shutdown();
        check(sum == 40425, "threads");

        Process child = new ProcessBuilder("sh", "-c", "cat | tr a-z A-Z").start();
        try (OutputStream out = child.getOutputStream()) { out.write("abc".getBytes()); }
        check(new String(child.getInputStream().readAllBytes()).equals("ABC") && child.waitFor() == 0, "processes");

        Path file = Files.createTempFile("a", "b");
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            MappedByteBuffer mapped = channel.map(FileChannel.MapMode.READ_WRITE, 0, 4096);
            mapped.putInt(0, 42);
            mapped.force();
            channel.force(true);
            check(channel.size() == 4096 && channel.tryLock() != null, "mapped");
        }
        Path copy = Files.copy(file, file.resolveSibling("copy"), StandardCopyOption.COPY_ATTRIBUTES);
        Files.move(copy, file.resolveSibling("moved"), StandardCopyOption.ATOMIC_MOVE);
        check(Files.size(file.resolveSibling("moved")) == 4096, "files");

        try (ServerSocket server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress());
             Socket client = new Socket(server.getInetAddress(), server.getLocalPort());
             Socket other = server.accept()) {
            client.setTcpNoDelay(true);
            client.getOutputStream().write(7);
            check(other.getInputStream().read() == 7, "sockets");
        }
        Selector selector = Selector.open();
        Pipe pipe = Pipe.open();
        pipe.source().configureBlocking(false).register(selector, SelectionKey.OP_READ);
        pipe.sink().write(ByteBuffer.wrap(new byte[] {1}));
        check(selector.select(30_000) == 1, "selector");
        check(Collections.list(NetworkInterface.getNetworkInterfaces()).get(0).isLoopback(), "interfaces");

        byte[] chance = new byte[16];
        new java.security.SecureRandom().nextBytes(chance);
        System.gc();
        check(ProcessHandle.current().pid() > 1, "rest");
    }
}
