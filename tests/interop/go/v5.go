package main

import (
	"context"
	"net"

	"github.com/eclipse/paho.golang/packets"
	"github.com/eclipse/paho.golang/paho"
)

type clientV5 struct {
	client     *paho.Client
	connection net.Conn
	present    bool
	inbox      chan message
}

func connectV5(name string, clean bool, will string) client {
	c := &clientV5{connection: packets.NewThreadSafeConn(dial()), inbox: make(chan message, 100)}
	received := func(p paho.PublishReceived) (bool, error) {
		m := p.Packet
		c.inbox <- message{payload: m.Payload, qos: m.QoS, retained: m.Retain, properties: m.Properties}
		return true, nil
	}
	c.client = paho.NewClient(paho.ClientConfig{
		Conn:              c.connection,
		PacketTimeout:     patience,
		OnPublishReceived: []func(paho.PublishReceived) (bool, error){received},
	})
	expiry := uint32(300)
	if clean {
		expiry = 0
	}
	connect := &paho.Connect{
		ClientID:     id(name),
		KeepAlive:    60,
		CleanStart:   clean,
		Username:     *user,
		UsernameFlag: *user != "",
		Password:     []byte(*password),
		PasswordFlag: *password != "",
		Properties:   &paho.ConnectProperties{SessionExpiryInterval: &expiry},
	}
	if will != "" {
		connect.WillMessage = &paho.WillMessage{Topic: *prefix + "/will", Payload: []byte(will), QoS: 1}
	}
	connack, err := c.client.Connect(context.Background(), connect)
	check("CONNACK", err)
	c.present = connack.SessionPresent
	return c
}

func (c *clientV5) sessionPresent() bool { return c.present }

func (c *clientV5) subscribe(topic string, qos byte) {
	subscriptions := []paho.SubscribeOptions{{Topic: *prefix + "/" + topic, QoS: qos}}
	suback, err := c.client.Subscribe(context.Background(), &paho.Subscribe{Subscriptions: subscriptions})
	check("SUBACK", err)
	expect("granted", suback.Reasons, []byte{qos})
}

func (c *clientV5) publish(topic string, payload []byte, qos byte, retained bool) {
	c.publishWith(topic, payload, qos, retained, nil)
}

func (c *clientV5) publishWith(topic string, payload []byte, qos byte, retained bool, p *paho.PublishProperties) {
	publish := &paho.Publish{Topic: *prefix + "/" + topic, QoS: qos, Retain: retained, Payload: payload, Properties: p}
	_, err := c.client.Publish(context.Background(), publish)
	check("publish", err)
}

func (c *clientV5) take(count int) []message { return takeFrom(c.inbox, count) }

func (c *clientV5) cutOff() { check("close", c.connection.Close()) }

func (c *clientV5) end() {
	check("disconnect", c.client.Disconnect(&paho.Disconnect{ReasonCode: 0}))
	<-c.client.Done()
}

func properties() {
	c := connectV5("properties", true, "").(*clientV5)
	c.subscribe("properties", 1)
	sent := &paho.PublishProperties{
		ResponseTopic:   *prefix + "/answers",
		CorrelationData: []byte{0, 1, 255},
		ContentType:     "text/plain",
		User:            paho.UserProperties{{Key: "line", Value: "7"}, {Key: "cell", Value: "b"}, {Key: "line", Value: "8"}},
	}
	c.publishWith("properties", []byte("p"), 1, false, sent)
	got := c.take(1)[0].properties.(*paho.PublishProperties)
	expect("user properties", got.User, sent.User)
	expect("response topic", got.ResponseTopic, sent.ResponseTopic)
	expect("correlation data", got.CorrelationData, sent.CorrelationData)
	expect("content type", got.ContentType, sent.ContentType)
	c.end()
}
