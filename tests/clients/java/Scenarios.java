// The Java client's run through the scenarios: `Scenarios NAME…` with PULSAR_URL, and PULSAR_TOKEN where a token is needed.
//
// Prints one line per scenario: `ok NAME`, `FAIL NAME reason`, or `absent NAME reason` where this client cannot ask for it. What each scenario
// means stands in the list of `cargo xtask clients`.

import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicIntegerArray;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.pulsar.client.api.AuthenticationFactory;
import org.apache.pulsar.client.api.ClientBuilder;
import org.apache.pulsar.client.api.CompressionType;
import org.apache.pulsar.client.api.Consumer;
import org.apache.pulsar.client.api.ConsumerBuilder;
import org.apache.pulsar.client.api.Message;
import org.apache.pulsar.client.api.MessageId;
import org.apache.pulsar.client.api.MessageIdAdv;
import org.apache.pulsar.client.api.Producer;
import org.apache.pulsar.client.api.ProducerBuilder;
import org.apache.pulsar.client.api.PulsarClient;
import org.apache.pulsar.client.api.PulsarClientException;
import org.apache.pulsar.client.api.Reader;
import org.apache.pulsar.client.api.SubscriptionInitialPosition;
import org.apache.pulsar.client.api.SubscriptionType;

public final class Scenarios {
    /** How long a message that must come may take, and how long one that must not come is waited for. */
    private static final int COMES_MS = 20_000;

    private static final int STAYS_AWAY_MS = 500;
    private static final int BIG = 5 * 1024 * 1024 + 1;
    private static final int CROWD = 200_000;

    private static final Map<String, String> ABSENT = Map.of("consumer-stats", "the Java client asks the admin API for them");

    private interface Scenario {
        void run(Rig rig) throws Exception;
    }

    private static final Map<String, Scenario> SCENARIOS = new HashMap<>();

    static {
        SCENARIOS.put("keys-and-properties", Scenarios::keysAndProperties);
        SCENARIOS.put("batches", Scenarios::batches);
        SCENARIOS.put("compression-lz4", rig -> compression(rig, CompressionType.LZ4));
        SCENARIOS.put("compression-zstd", rig -> compression(rig, CompressionType.ZSTD));
        SCENARIOS.put("compression-zlib", rig -> compression(rig, CompressionType.ZLIB));
        SCENARIOS.put("compression-snappy", rig -> compression(rig, CompressionType.SNAPPY));
        SCENARIOS.put("exclusive", Scenarios::exclusive);
        SCENARIOS.put("shared", Scenarios::shared);
        SCENARIOS.put("failover", Scenarios::failover);
        SCENARIOS.put("key-shared", Scenarios::keyShared);
        SCENARIOS.put("key-affinity", Scenarios::keyAffinity);
        SCENARIOS.put("ack-individual", Scenarios::ackIndividual);
        SCENARIOS.put("ack-cumulative", Scenarios::ackCumulative);
        SCENARIOS.put("ack-batch-index", Scenarios::ackBatchIndex);
        SCENARIOS.put("nack", Scenarios::nack);
        SCENARIOS.put("redeliver-all", Scenarios::redeliverAll);
        SCENARIOS.put("unacked-again", Scenarios::unackedAgain);
        SCENARIOS.put("acked-never-again", Scenarios::ackedNeverAgain);
        SCENARIOS.put("seek-id", Scenarios::seekId);
        SCENARIOS.put("seek-time", Scenarios::seekTime);
        SCENARIOS.put("last-message-id", Scenarios::lastMessageId);
        SCENARIOS.put("deliver-after", Scenarios::deliverAfter);
        SCENARIOS.put("dedup", Scenarios::dedup);
        SCENARIOS.put("unsubscribe", Scenarios::unsubscribe);
        SCENARIOS.put("pattern", rig -> exactly(matching(rig), List.of()));
        SCENARIOS.put("pattern-grows", Scenarios::patternGrows);
        SCENARIOS.put("shared-200k", Scenarios::shared200k);
        SCENARIOS.put("oversized", Scenarios::oversized);
        SCENARIOS.put("exclusive-conflict", Scenarios::exclusiveConflict);
        SCENARIOS.put("reader", Scenarios::reader);
        SCENARIOS.put("token-right", Scenarios::exclusive);
        SCENARIOS.put("token-wrong", rig -> tokenRefused(rig, "wrong"));
        SCENARIOS.put("token-none", rig -> tokenRefused(rig, null));
    }

    /** A client, a topic of its own, and short words for what every scenario does. */
    private record Rig(PulsarClient client, String topic) {
        ConsumerBuilder<byte[]> consumer() {
            return client.newConsumer()
                    .topic(topic)
                    .subscriptionName("s")
                    .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest);
        }

        Consumer<byte[]> consumer(SubscriptionType kind) throws PulsarClientException {
            return consumer().subscriptionType(kind).subscribe();
        }

        ProducerBuilder<byte[]> producer() {
            return client.newProducer().topic(topic).enableBatching(false);
        }

        ProducerBuilder<byte[]> batching(int messages, int delayMs) {
            return producer()
                    .enableBatching(true)
                    .batchingMaxMessages(messages)
                    .batchingMaxPublishDelay(delayMs, TimeUnit.MILLISECONDS)
                    .blockIfQueueFull(true);
        }

        /** From now on a subscription that acknowledges nothing keeps the topic's messages, so that others can go back to them. */
        void keep() throws PulsarClientException {
            consumer().subscriptionName("keeper").subscribe().close();
        }

        List<MessageId> send(List<String> payloads) throws PulsarClientException {
            try (Producer<byte[]> producer = producer().create()) {
                List<MessageId> ids = new ArrayList<>();
                for (String payload : payloads) {
                    ids.add(producer.send(payload.getBytes(UTF_8)));
                }
                return ids;
            }
        }
    }

    private static PulsarClient connect(String token) throws PulsarClientException {
        ClientBuilder builder =
                PulsarClient.builder().serviceUrl(System.getenv("PULSAR_URL")).operationTimeout(20, TimeUnit.SECONDS);
        if (token != null) {
            builder = builder.authentication(AuthenticationFactory.token(token));
        }
        return builder.build();
    }

    private static List<String> numbers(int start, int end) {
        return IntStream.range(start, end).mapToObj(Integer::toString).collect(Collectors.toList());
    }

    private static void same(Object found, Object expected, String what) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError(what + ": " + brief(found) + " instead of " + brief(expected));
        }
    }

    private static String brief(Object value) {
        String text = String.valueOf(value);
        return text.length() > 300 ? text.substring(0, 300) : text;
    }

    private interface Action {
        void run() throws Exception;
    }

    /** The action must fail with exactly this error of the client. */
    private static void refused(Class<? extends Exception> error, Action action) {
        try {
            action.run();
        } catch (Exception found) {
            same(found.getClass(), error, "refused with " + found.getMessage());
            return;
        }
        throw new AssertionError("not refused; " + error.getSimpleName() + " expected");
    }

    /** That many messages, which must come. */
    private static List<Message<byte[]>> receive(Consumer<byte[]> consumer, int count, boolean acknowledge) throws PulsarClientException {
        List<Message<byte[]>> messages = new ArrayList<>();
        while (messages.size() < count) {
            Message<byte[]> message = consumer.receive(COMES_MS, TimeUnit.MILLISECONDS);
            if (message == null) {
                throw new AssertionError("only " + messages.size() + " of " + count + " messages came");
            }
            if (acknowledge) {
                consumer.acknowledge(message);
            }
            messages.add(message);
        }
        return messages;
    }

    private static String text(Message<byte[]> message) {
        return new String(message.getData(), UTF_8);
    }

    private static List<String> texts(Collection<Message<byte[]>> messages) {
        return messages.stream().map(Scenarios::text).collect(Collectors.toList());
    }

    private static List<String> sorted(List<String> texts) {
        return texts.stream().sorted().collect(Collectors.toList());
    }

    /** These payloads come in this order, and nothing after them. */
    private static void exactly(Consumer<byte[]> consumer, List<String> expected) throws PulsarClientException {
        exactly(consumer, expected, UnaryOperator.identity());
    }

    private static void exactly(Consumer<byte[]> consumer, List<String> expected, UnaryOperator<List<String>> order)
            throws PulsarClientException {
        same(order.apply(texts(receive(consumer, expected.size(), true))), expected, "payloads");
        Message<byte[]> more = consumer.receive(STAYS_AWAY_MS, TimeUnit.MILLISECONDS);
        same(more == null ? null : text(more), null, "what came after all that should come");
    }

    /** A message, and which of the consumers had it. */
    private record Had(int by, Message<byte[]> message) {}

    /** So many messages as they come, acknowledged. Each consumer has some. */
    private static List<Had> sharedOut(List<Consumer<byte[]>> consumers, int count) throws PulsarClientException {
        List<Had> found = new ArrayList<>();
        long deadline = System.currentTimeMillis() + COMES_MS;
        while (found.size() < count && System.currentTimeMillis() < deadline) {
            for (int at = 0; at < consumers.size(); at++) {
                Message<byte[]> message = consumers.get(at).receive(50, TimeUnit.MILLISECONDS);
                if (message != null) {
                    consumers.get(at).acknowledge(message);
                    found.add(new Had(at, message));
                }
            }
        }
        same(sorted(found.stream().map(had -> text(had.message)).collect(Collectors.toList())), sorted(numbers(0, count)), "payloads");
        same(found.stream().map(Had::by).distinct().count(), (long) consumers.size(), "consumers with a share");
        return found;
    }

    /** Sends without waiting in between, and waits for all receipts. */
    private static void sendAll(Producer<byte[]> producer, List<String> contents) throws Exception {
        List<CompletableFuture<MessageId>> receipts = new ArrayList<>();
        for (int number = 0; number < contents.size(); number++) {
            receipts.add(producer.newMessage()
                    .key("k" + number % 3)
                    .property("n", Integer.toString(number))
                    .value(contents.get(number).getBytes(UTF_8))
                    .sendAsync());
        }
        producer.flush();
        for (CompletableFuture<MessageId> receipt : receipts) {
            receipt.get(COMES_MS, TimeUnit.MILLISECONDS);
        }
    }

    private static void keysAndProperties(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        Producer<byte[]> producer = rig.producer().create();
        for (int number = 0; number < 10; number++) {
            producer.newMessage()
                    .key("k" + number % 3)
                    .properties(Map.of("n", Integer.toString(number), "word", "grün"))
                    .eventTime(1000 + number)
                    .value(Integer.toString(number).getBytes(UTF_8))
                    .send();
        }
        List<Message<byte[]>> messages = receive(consumer, 10, true);
        same(texts(messages), numbers(0, 10), "payloads");
        for (int number = 0; number < 10; number++) {
            Message<byte[]> message = messages.get(number);
            same(message.getKey(), "k" + number % 3, "key");
            same(message.getProperties(), Map.of("n", Integer.toString(number), "word", "grün"), "properties");
            same(message.getEventTime(), 1000L + number, "event time");
        }
    }

    private static void batches(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        sendAll(rig.batching(100, 1000).create(), numbers(0, 1000));
        List<Message<byte[]>> messages = receive(consumer, 1000, true);
        same(texts(messages), numbers(0, 1000), "payloads");
        for (int number = 0; number < 1000; number++) {
            Message<byte[]> message = messages.get(number);
            same(message.getKey(), "k" + number % 3, "key");
            same(message.getProperties(), Map.of("n", Integer.toString(number)), "properties");
        }
    }

    private static void compression(Rig rig, CompressionType kind) throws Exception {
        List<String> contents = numbers(0, 20).stream().map(number -> number + "leat".repeat(2500)).collect(Collectors.toList());
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        for (ProducerBuilder<byte[]> builder : List.of(rig.batching(100, 100), rig.producer())) {
            sendAll(builder.compressionType(kind).create(), contents);
            same(texts(receive(consumer, 20, true)), contents, "payloads");
        }
    }

    private static void exclusive(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 100));
        exactly(consumer, numbers(0, 100));
    }

    private static void shared(Rig rig) throws Exception {
        ConsumerBuilder<byte[]> modest = rig.consumer().subscriptionType(SubscriptionType.Shared).receiverQueueSize(5);
        List<Consumer<byte[]>> consumers = List.of(modest.clone().subscribe(), modest.clone().subscribe());
        rig.send(numbers(0, 100));
        sharedOut(consumers, 100);
    }

    private static void failover(Rig rig) throws Exception {
        ConsumerBuilder<byte[]> builder = rig.consumer().subscriptionType(SubscriptionType.Failover);
        Consumer<byte[]> active = builder.clone().consumerName("a").subscribe();
        Consumer<byte[]> standby = builder.clone().consumerName("b").subscribe();
        rig.send(numbers(0, 50));
        // Which of the two is the active one is the server's choice.
        Message<byte[]> head = active.receive(3, TimeUnit.SECONDS);
        if (head == null) {
            Consumer<byte[]> other = active;
            active = standby;
            standby = other;
            head = receive(active, 1, false).get(0);
        }
        active.acknowledge(head);
        List<Message<byte[]>> messages = new ArrayList<>(List.of(head));
        messages.addAll(receive(active, 49, true));
        same(texts(messages), numbers(0, 50), "payloads");
        exactly(standby, List.of());
        active.close();
        rig.send(numbers(50, 100));
        exactly(standby, numbers(50, 100));
    }

    /** Sends 200 messages of 20 keys to two consumers, and gives what came of each key. */
    private static Map<String, List<Had>> byKey(Rig rig) throws PulsarClientException {
        List<Consumer<byte[]>> consumers = List.of(rig.consumer(SubscriptionType.Key_Shared), rig.consumer(SubscriptionType.Key_Shared));
        Producer<byte[]> producer = rig.producer().create();
        for (int number = 0; number < 200; number++) {
            producer.newMessage().key("key-" + number % 20).value(Integer.toString(number).getBytes(UTF_8)).send();
        }
        return sharedOut(consumers, 200).stream().collect(Collectors.groupingBy(had -> had.message.getKey()));
    }

    private static void keyShared(Rig rig) throws Exception {
        byKey(rig).forEach((key, messages) -> {
            List<Integer> order = messages.stream().map(had -> Integer.parseInt(text(had.message))).collect(Collectors.toList());
            same(order, order.stream().sorted().collect(Collectors.toList()), "order of " + key);
        });
    }

    private static void keyAffinity(Rig rig) throws Exception {
        byKey(rig).forEach((key, messages) -> same(messages.stream().map(Had::by).distinct().count(), 1L, "consumers that had " + key));
    }

    private static void ackIndividual(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        List<Message<byte[]>> messages = receive(consumer, 10, false);
        for (int number = 0; number < 10; number += 2) {
            consumer.acknowledge(messages.get(number));
        }
        consumer.close();
        exactly(rig.consumer(SubscriptionType.Exclusive), List.of("1", "3", "5", "7", "9"));
    }

    private static void ackCumulative(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        consumer.acknowledgeCumulative(receive(consumer, 10, false).get(4));
        consumer.close();
        exactly(rig.consumer(SubscriptionType.Exclusive), numbers(5, 10));
    }

    private static void ackBatchIndex(Rig rig) throws Exception {
        ConsumerBuilder<byte[]> builder = rig.consumer().subscriptionType(SubscriptionType.Shared).enableBatchIndexAcknowledgment(true);
        Consumer<byte[]> consumer = builder.clone().subscribe();
        sendAll(rig.batching(10, 1000).create(), numbers(0, 10));
        List<Message<byte[]>> messages = receive(consumer, 10, false);
        for (int number : List.of(0, 2, 4)) {
            consumer.acknowledge(messages.get(number));
        }
        consumer.close();
        exactly(builder.clone().subscribe(), List.of("1", "3", "5", "6", "7", "8", "9"));
    }

    private static void nack(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer()
                .subscriptionType(SubscriptionType.Shared)
                .negativeAckRedeliveryDelay(200, TimeUnit.MILLISECONDS)
                .subscribe();
        rig.send(numbers(0, 10));
        for (Message<byte[]> message : receive(consumer, 10, false)) {
            if (text(message).equals("3")) {
                consumer.negativeAcknowledge(message);
            } else {
                consumer.acknowledge(message);
            }
        }
        Message<byte[]> again = receive(consumer, 1, true).get(0);
        same(text(again), "3", "payload");
        same(again.getRedeliveryCount(), 1, "redelivery count");
        exactly(consumer, List.of());
    }

    private static void redeliverAll(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Shared);
        rig.send(numbers(0, 10));
        receive(consumer, 10, false);
        consumer.redeliverUnacknowledgedMessages();
        exactly(consumer, numbers(0, 10), Scenarios::sorted);
    }

    private static void unackedAgain(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        receive(consumer, 10, false);
        consumer.close();
        exactly(rig.consumer(SubscriptionType.Exclusive), numbers(0, 10));
    }

    private static void ackedNeverAgain(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        receive(consumer, 10, true);
        consumer.close();
        consumer = rig.consumer(SubscriptionType.Exclusive);
        exactly(consumer, List.of());
        rig.send(List.of("new"));
        exactly(consumer, List.of("new"));
    }

    private static void seekId(Rig rig) throws Exception {
        rig.keep();
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        MessageId fourth = receive(consumer, 10, true).get(4).getMessageId();
        consumer.seek(fourth);
        // The client leaves out the message of the identifier itself.
        exactly(consumer, numbers(5, 10));
        consumer.seek(MessageId.earliest);
        exactly(consumer, numbers(0, 10));
    }

    private static void seekTime(Rig rig) throws Exception {
        rig.keep();
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 5));
        Thread.sleep(100);
        long middle = System.currentTimeMillis();
        Thread.sleep(100);
        rig.send(numbers(5, 10));
        receive(consumer, 10, true);
        consumer.seek(middle);
        exactly(consumer, numbers(5, 10));
    }

    private static void lastMessageId(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        MessageIdAdv last = (MessageIdAdv) receive(consumer, 10, true).get(9).getMessageId();
        MessageIdAdv found = (MessageIdAdv) consumer.getLastMessageIds().get(0);
        same(List.of(found.getLedgerId(), found.getEntryId()), List.of(last.getLedgerId(), last.getEntryId()), "last message id");
    }

    private static void deliverAfter(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Shared);
        Producer<byte[]> producer = rig.producer().create();
        long sent = System.currentTimeMillis();
        producer.newMessage().deliverAfter(2, TimeUnit.SECONDS).value("late".getBytes(UTF_8)).send();
        producer.send("now".getBytes(UTF_8));
        same(texts(receive(consumer, 1, true)), List.of("now"), "payloads");
        same(texts(receive(consumer, 1, true)), List.of("late"), "payloads");
        long waited = System.currentTimeMillis() - sent;
        same(waited >= 1900, true, "the delayed message came after " + waited + " ms of 2000");
    }

    private static void dedup(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        try (Producer<byte[]> producer = rig.producer().producerName("p").create()) {
            for (int number = 0; number < 10; number++) {
                producer.newMessage().sequenceId(number).value(Integer.toString(number).getBytes(UTF_8)).send();
            }
        }
        try (Producer<byte[]> producer = rig.producer().producerName("p").create()) {
            same(producer.getLastSequenceId(), 9L, "last sequence");
            for (int number = 5; number < 15; number++) {
                producer.newMessage().sequenceId(number).value(Integer.toString(number).getBytes(UTF_8)).send();
            }
        }
        exactly(consumer, numbers(0, 15));
    }

    private static void unsubscribe(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        rig.send(numbers(0, 10));
        consumer.unsubscribe();
        consumer = rig.consumer().subscriptionInitialPosition(SubscriptionInitialPosition.Latest).subscribe();
        rig.send(List.of("new"));
        exactly(consumer, List.of("new"));
    }

    /** Two topics, and a consumer of all that begin like them, which has what was in the two. */
    private static Consumer<byte[]> matching(Rig rig) throws PulsarClientException {
        for (String end : List.of("a", "b")) {
            Rig one = new Rig(rig.client, rig.topic + "-" + end);
            one.keep();
            one.send(List.of(end));
        }
        Consumer<byte[]> consumer = rig.client
                .newConsumer()
                .topicsPattern(Pattern.compile(rig.topic + "-.*"))
                .patternAutoDiscoveryPeriod(1, TimeUnit.SECONDS)
                .subscriptionName("s")
                .subscriptionInitialPosition(SubscriptionInitialPosition.Earliest)
                .subscribe();
        same(sorted(texts(receive(consumer, 2, true))), List.of("a", "b"), "payloads");
        return consumer;
    }

    private static void patternGrows(Rig rig) throws Exception {
        Consumer<byte[]> consumer = matching(rig);
        Rig late = new Rig(rig.client, rig.topic + "-c");
        late.keep();
        late.send(List.of("c"));
        exactly(consumer, List.of("c"));
    }

    private static void shared200k(Rig rig) throws Exception {
        AtomicIntegerArray times = new AtomicIntegerArray(CROWD);
        AtomicInteger received = new AtomicInteger();
        AtomicLong last = new AtomicLong(System.currentTimeMillis());
        for (int index = 0; index < 2; index++) {
            rig.consumer()
                    .subscriptionType(SubscriptionType.Shared)
                    .messageListener((consumer, message) -> {
                        times.incrementAndGet(Integer.parseInt(text(message).substring(0, 7)));
                        received.incrementAndGet();
                        last.set(System.currentTimeMillis());
                        consumer.acknowledgeAsync(message);
                    })
                    .subscribe();
        }
        String rest = ".".repeat(93);
        sendAll(rig.batching(1000, 10).create(), IntStream.range(0, CROWD).mapToObj(number -> String.format("%07d", number) + rest).collect(Collectors.toList()));
        long deadline = System.currentTimeMillis() + 120_000;
        while ((received.get() < CROWD || System.currentTimeMillis() - last.get() < STAYS_AWAY_MS) && System.currentTimeMillis() < deadline) {
            Thread.sleep(50);
        }
        same(received.get(), CROWD, "messages received");
        same(IntStream.range(0, CROWD).filter(number -> times.get(number) != 1).count(), 0L, "messages that did not come once");
    }

    private static void oversized(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        Producer<byte[]> producer = rig.producer().create();
        refused(PulsarClientException.InvalidMessageException.class, () -> producer.send(new byte[BIG]));
        producer.send("small".getBytes(UTF_8));
        exactly(consumer, List.of("small"));
    }

    private static void exclusiveConflict(Rig rig) throws Exception {
        Consumer<byte[]> consumer = rig.consumer(SubscriptionType.Exclusive);
        refused(PulsarClientException.ConsumerBusyException.class, () -> rig.consumer(SubscriptionType.Exclusive));
        rig.send(List.of("kept"));
        exactly(consumer, List.of("kept"));
    }

    private static void reader(Rig rig) throws Exception {
        rig.keep();
        List<MessageId> ids = rig.send(numbers(0, 10));
        same(read(rig, MessageId.earliest, 10).hasMessageAvailable(), false, "more to read");
        read(rig, ids.get(6), 3);
    }

    /** Reads the last so many of ten messages, which must be those after this one. */
    private static Reader<byte[]> read(Rig rig, MessageId from, int count) throws PulsarClientException {
        Reader<byte[]> reader = rig.client.newReader().topic(rig.topic).startMessageId(from).create();
        List<String> found = new ArrayList<>();
        while (found.size() < count) {
            Message<byte[]> message = reader.readNext(COMES_MS, TimeUnit.MILLISECONDS);
            if (message == null) {
                throw new AssertionError("only " + found + " to read");
            }
            found.add(text(message));
        }
        same(found, numbers(10 - count, 10), "payloads");
        return reader;
    }

    private static void tokenRefused(Rig rig, String token) throws Exception {
        try (PulsarClient client = connect(token)) {
            refused(PulsarClientException.AuthenticationException.class, () -> client.newProducer().topic(rig.topic).create());
        }
    }

    public static void main(String[] names) throws Exception {
        // One client for all: closing one takes seconds, and each scenario has a topic of its own.
        PulsarClient client = connect(System.getenv("PULSAR_TOKEN"));
        for (String name : names) {
            if (ABSENT.containsKey(name)) {
                System.out.println("absent " + name + " " + ABSENT.get(name));
                continue;
            }
            try {
                String topic = "persistent://public/default/java-" + name + "-" + Long.toHexString(System.nanoTime());
                SCENARIOS.get(name).run(new Rig(client, topic));
                System.out.println("ok " + name);
            } catch (Exception | AssertionError failure) {
                System.out.println("FAIL " + name + " " + failure.toString().replace('\n', ' '));
            }
        }
        // Its threads would go on; what is on the server ends with the connection.
        System.exit(0);
    }
}
