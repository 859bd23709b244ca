package main

import (
	"net"
	"net/url"
	"time"

	v4 "github.com/eclipse/paho.mqtt.golang"
)

type clientV4 struct {
	client     v4.Client
	connection net.Conn
	present    bool
	inbox      chan message
}

func connectV4(name string, clean bool, will string) client {
	c := &clientV4{connection: dial(), inbox: make(chan message, 100)}
	options := v4.NewClientOptions()
	options.AddBroker("tcp://" + *host + ":" + *port)
	options.SetCustomOpenConnectionFn(func(*url.URL, v4.ClientOptions) (net.Conn, error) { return c.connection, nil })
	options.SetProtocolVersion(4)
	options.SetClientID(id(name))
	options.SetCleanSession(clean)
	options.SetUsername(*user)
	options.SetPassword(*password)
	options.SetAutoReconnect(false)
	options.SetConnectTimeout(patience)
	options.SetKeepAlive(time.Minute)
	if will != "" {
		options.SetWill(*prefix+"/will", will, 1, false)
	}
	options.SetDefaultPublishHandler(func(_ v4.Client, m v4.Message) {
		c.inbox <- message{payload: m.Payload(), qos: m.Qos(), retained: m.Retained()}
	})
	c.client = v4.NewClient(options)
	token := c.client.Connect()
	token.Wait()
	check("CONNACK", token.Error())
	c.present = token.(*v4.ConnectToken).SessionPresent()
	return c
}

func (c *clientV4) sessionPresent() bool { return c.present }

func (c *clientV4) subscribe(topic string, qos byte) {
	token := c.client.Subscribe(*prefix+"/"+topic, qos, nil)
	token.Wait()
	check("SUBACK", token.Error())
	expect("granted", token.(*v4.SubscribeToken).Result(), map[string]byte{*prefix + "/" + topic: qos})
}

func (c *clientV4) publish(topic string, payload []byte, qos byte, retained bool) {
	token := c.client.Publish(*prefix+"/"+topic, qos, retained, payload)
	token.Wait()
	check("publish", token.Error())
}

func (c *clientV4) take(count int) []message { return takeFrom(c.inbox, count) }

func (c *clientV4) cutOff() { check("close", c.connection.Close()) }

func (c *clientV4) end() { c.client.Disconnect(1000) }

func takeFrom(inbox chan message, count int) []message {
	var messages []message
	for range count {
		messages = append(messages, <-inbox)
	}
	return messages
}
