// The two Go clients of Eclipse in the scenarios of the README: paho.mqtt.golang for version 4, paho.golang for version 5.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"time"

	v4 "github.com/eclipse/paho.mqtt.golang"
)

const (
	count    = 20
	patience = 120 * time.Second
)

var (
	host      = flag.String("host", "", "")
	port      = flag.String("port", "", "")
	scheme    = flag.String("scheme", "", "")
	ca        = flag.String("ca", "", "")
	user      = flag.String("user", "", "")
	password  = flag.String("password", "", "")
	version   = flag.Int("version", 4, "")
	prefix    = flag.String("prefix", "", "")
	scenarios = flag.String("scenarios", "", "")
)

type message struct {
	payload    []byte
	qos        byte
	retained   bool
	properties any
}

// What both libraries' clients can do.
type client interface {
	sessionPresent() bool
	subscribe(topic string, qos byte)
	publish(topic string, payload []byte, qos byte, retained bool)
	take(count int) []message
	cutOff()
	end()
}

func fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	fmt.Fprintln(os.Stderr, text[:min(len(text), 1000)])
	os.Exit(1)
}

func check(what string, err error) {
	if err != nil {
		fail("%s: %v", what, err)
	}
}

func expect(what string, have, want any) {
	if !reflect.DeepEqual(have, want) {
		fail("%s: %v instead of %v", what, have, want)
	}
}

func id(name string) string {
	return strings.ReplaceAll(*prefix, "/", "-") + "-" + name
}

func trust() *tls.Config {
	if *ca == "" {
		return nil
	}
	pem, err := os.ReadFile(*ca)
	check("the authority's file", err)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		fail("no certificate in %s", *ca)
	}
	return &tls.Config{RootCAs: pool, ServerName: "localhost"}
}

// A connection that the libraries are given, so that it can be cut off below them.
func dial() net.Conn {
	address := net.JoinHostPort(*host, *port)
	var connection net.Conn
	var err error
	switch *scheme {
	case "tcp":
		connection, err = net.DialTimeout("tcp", address, patience)
	case "tls":
		connection, err = tls.Dial("tcp", address, trust())
	default:
		connection, err = v4.NewWebsocket(*scheme+"://"+address+"/mqtt", trust(), patience, nil, nil)
	}
	check("connect", err)
	return connection
}

func connect(name string, clean bool, will string) client {
	if *version == 5 {
		return connectV5(name, clean, will)
	}
	return connectV4(name, clean, will)
}

func texts(messages []message) []string {
	var texts []string
	for _, message := range messages {
		texts = append(texts, string(message.payload))
	}
	return texts
}

func numbered(name string, count int) []string {
	var texts []string
	for n := range count {
		texts = append(texts, fmt.Sprintf("%s %d", name, n))
	}
	return texts
}

func qos() {
	c := connect("qos", true, "")
	for level := byte(0); level <= 2; level++ {
		topic := fmt.Sprintf("qos/%d", level)
		c.subscribe(topic, level)
		sent := numbered(topic, count)
		for _, payload := range sent {
			c.publish(topic, []byte(payload), level, false)
		}
		messages := c.take(count)
		expect("payloads", texts(messages), sent)
		for _, message := range messages {
			expect("QoS", message.qos, level)
		}
	}
	c.end()
}

func resume() {
	c := connect("resume", false, "")
	expect("session present", c.sessionPresent(), false)
	c.subscribe("resume", 1)
	c.end()
	sent := numbered("while away", 5)
	other := connect("resume-other", true, "")
	for _, payload := range sent {
		other.publish("resume", []byte(payload), 1, false)
	}
	other.end()
	c = connect("resume", false, "")
	expect("session present", c.sessionPresent(), true)
	expect("payloads", texts(c.take(5)), sent)
	c.end()
	connect("resume", true, "").end()
}

func will() {
	watcher := connect("watcher", true, "")
	watcher.subscribe("will", 1)
	connect("mortal", true, "gone").cutOff()
	expect("will", texts(watcher.take(1)), []string{"gone"})
	watcher.end()
}

func retained() {
	publisher := connect("retained", true, "")
	publisher.publish("retained/a", []byte("kept"), 1, true)
	reader := connect("retained-reader", true, "")
	reader.subscribe("retained/#", 1)
	got := reader.take(1)[0]
	expect("retained", []any{string(got.payload), got.retained}, []any{"kept", true})
	reader.end()
	publisher.publish("retained/a", nil, 1, true)
	reader = connect("retained-late", true, "")
	reader.subscribe("retained/#", 1)
	publisher.publish("retained/b", []byte("after"), 1, false)
	got = reader.take(1)[0]
	expect("nothing retained", []any{string(got.payload), got.retained}, []any{"after", false})
	reader.end()
	publisher.end()
}

func large() {
	sent := make([]byte, 200*1024)
	for n := range sent {
		sent[n] = byte(n * 7 % 251)
	}
	c := connect("large", true, "")
	c.subscribe("large", 1)
	c.publish("large", sent, 1, false)
	expect("large payload", bytes.Equal(c.take(1)[0].payload, sent), true)
	c.end()
}

func main() {
	flag.Parse()
	all := map[string]func(){
		"qos": qos, "resume": resume, "will": will, "retained": retained, "large": large, "properties": properties,
	}
	for _, name := range strings.Split(*scenarios, ",") {
		all[name]()
		fmt.Println("ok", name)
	}
}
