"""Small models that do not train as Keras' models do: each builds itself, compiles itself and says what it is fitted on.

`MODELS` maps a name to a function that returns the model, a function that compiles it (plain or wrapped), and the arguments of
`fit`. All of them are the same for the same seed of Keras.
"""

import keras
import numpy as np
import tensorflow as tf

L, ops = keras.layers, keras.ops
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 12)).astype("float32")
Y = (X[:, 0] > 0).astype("int32")


def net(*units, inputs=12, name=None):
    layers = [L.Dense(u, "relu" if i < len(units) - 1 else None) for i, u in enumerate(units)]
    return keras.Sequential([keras.Input((inputs,)), *layers], name=name)


class VAE(keras.Model):
    """A sampling step between two nets, a loss of two parts, metrics of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = net(16, 4), net(16, 12, inputs=2)
        self.noise = keras.random.SeedGenerator(1)
        self.total, self.kl = keras.metrics.Mean("loss"), keras.metrics.Mean("kl")

    @property
    def metrics(self):
        return [self.total, self.kl]

    def call(self, x):
        return self.decoder(self.encoder(x)[:, :2])

    def train_step(self, x):
        with tf.GradientTape() as tape:
            mean, log_variance = ops.split(self.encoder(x), 2, axis=-1)
            z = mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.noise)
            kl = -ops.mean(1 + log_variance - mean**2 - ops.exp(log_variance)) / 2
            loss = ops.mean((self.decoder(z) - x) ** 2) + kl
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self.total.update_state(loss)
        self.kl.update_state(kl)
        return {metric.name: metric.result() for metric in self.metrics}


class GAN(keras.Model):
    """Two nets, two optimizers that its own `compile` takes, two updates of the one in a step; it is never called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator, self.critic = net(16, 12, inputs=4), net(16, 1)
        self.noise = keras.random.SeedGenerator(2)

    def compile(self, critic_optimizer, generator_optimizer):
        super().compile()
        self.critic_optimizer, self.generator_optimizer = critic_optimizer, generator_optimizer

    def train_step(self, x):
        for _ in range(2):
            z = keras.random.normal((ops.shape(x)[0], 4), seed=self.noise)
            with tf.GradientTape() as tape:
                critic_loss = ops.mean(self.critic(self.generator(z))) - ops.mean(self.critic(x))
            variables = self.critic.trainable_variables
            self.critic_optimizer.apply(tape.gradient(critic_loss, variables), variables)
        with tf.GradientTape() as tape:
            loss = -ops.mean(self.critic(self.generator(z)))
        variables = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss, "critic": critic_loss}


class Siamese(keras.Model):
    """One net for three inputs, and the triplet loss."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embed = net(16, 4)

    def call(self, inputs):
        return [self.embed(x) for x in inputs]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        anchor, positive, negative = y_pred
        near, far = ops.sum((anchor - positive) ** 2, -1), ops.sum((anchor - negative) ** 2, -1)
        return ops.mean(ops.relu(near - far + 1.0))


class Distiller(keras.Model):
    """A student and a frozen teacher, with losses that its own `compile` takes."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.student, self.teacher = net(16, 2), net(24, 2)
        self.teacher.trainable = False

    def compile(self, optimizer, student_loss, distillation_loss, alpha=0.3):
        super().compile(optimizer)
        self.student_loss, self.distillation_loss, self.alpha = student_loss, distillation_loss, alpha

    def call(self, x, training=None):
        return self.student(x, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        soft = self.distillation_loss(ops.softmax(self.teacher(x)), ops.softmax(y_pred))
        return self.alpha * self.student_loss(y, y_pred) + (1 - self.alpha) * soft


class MaskedAutoencoder(keras.Model):
    """Reconstructs inputs that it hides from itself, by `train_step` and `test_step`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = net(16, 8), net(12, inputs=8)
        self.noise = keras.random.SeedGenerator(3)

    def call(self, x):
        return self.decoder(self.encoder(x))

    def reconstruction(self, x):
        hidden = keras.random.uniform(ops.shape(x), seed=self.noise) < 0.5
        return ops.mean(ops.where(hidden, self(ops.where(hidden, 0.0, x)) - x, 0.0) ** 2)

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = self.reconstruction(x)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}

    def test_step(self, x):
        return {"loss": self.reconstruction(x)}


class GradientPenalty(keras.Model):
    """A loss that holds a gradient by the inputs."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net = keras.Sequential([keras.Input((12,)), L.Dense(16, "tanh"), L.Dense(1)])

    def call(self, x):
        return self.net(x)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            with tf.GradientTape() as inner:
                inner.watch(x)
                outputs = self(x)
            slope = ops.sqrt(ops.sum(inner.gradient(outputs, x) ** 2, -1) + 1e-6)
            loss = ops.mean((outputs[:, 0] - ops.cast(y, "float32")) ** 2) + ops.mean((slope - 1) ** 2)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss}


class DQN(keras.Model):
    """A net and a target that follows it, which the step assigns without an optimizer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.net, self.target = net(16, 3), net(16, 3)
        self.target.set_weights(self.net.get_weights())
        self.target.trainable = False

    def call(self, x):
        return self.net(x)

    def train_step(self, data):
        x, reward = data
        with tf.GradientTape() as tape:
            wanted = ops.cast(reward, "float32") + 0.9 * ops.max(self.target(x), -1)
            loss = ops.mean((self.net(x)[:, 0] - ops.stop_gradient(wanted)) ** 2)
        variables = self.net.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        for slow, fast in zip(self.target.variables, self.net.variables):
            slow.assign(0.9 * slow + 0.1 * fast)
        return {"loss": loss}


class ActorCritic(keras.Model):
    """Two heads on one trunk, trained by a method of its own, outside of `fit`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.trunk, self.actor, self.critic = L.Dense(16, "tanh"), L.Dense(3), L.Dense(1)

    def call(self, x):
        hidden = self.trunk(x)
        return self.actor(hidden), self.critic(hidden)

    def learn(self, optimizer, x, reward):
        with tf.GradientTape() as tape:
            logits, value = self(x)
            advantage = reward - value[:, 0]
            policy = -ops.mean(ops.log_softmax(logits)[:, 0] * ops.stop_gradient(advantage))
            loss = policy + ops.mean(advantage**2)
        optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return loss


class CTCEndpoint(L.Layer):
    """The last layer of a reader of texts: it adds the loss, and hands the predictions on."""

    def call(self, labels, predictions):
        length = ops.full((ops.shape(labels)[0],), predictions.shape[1], "int32")
        size = ops.full((ops.shape(labels)[0],), labels.shape[1], "int32")
        self.add_loss(ops.mean(ops.ctc_loss(labels, predictions, size, length, mask_index=0)))
        return predictions


def reader():
    image, labels = keras.Input((8, 12), name="image"), keras.Input((3,), dtype="int32", name="labels")
    hidden = L.Bidirectional(L.LSTM(6, return_sequences=True))(image)
    return keras.Model([image, labels], CTCEndpoint()(labels, L.Dense(5)(hidden)))


def built(model, *inputs):
    model(*inputs)
    return model


def adam(model):
    model.compile(keras.optimizers.Adam(0.01))


IMAGES = {
    "image": RNG.normal(size=(32, 8, 12)).astype("float32"),
    "labels": RNG.integers(1, 5, (32, 3)).astype("int32"),
}
CE = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
MODELS = {
    "vae": (lambda: built(VAE(), X), adam, (X,)),
    "gan": (
        GAN,
        lambda m: m.compile(
            critic_optimizer=keras.optimizers.SGD(0.01), generator_optimizer=keras.optimizers.Adam(0.01)
        ),
        (X,),
    ),
    "siamese": (lambda: built(Siamese(), [X, X, X]), adam, ([X, X + 0.1, X[::-1]],)),
    "distiller": (
        Distiller,
        lambda m: m.compile("adam", student_loss=CE, distillation_loss=keras.losses.KLDivergence()),
        (X, Y),
    ),
    "masked_autoencoder": (lambda: built(MaskedAutoencoder(), X), adam, (X,)),
    "gradient_penalty": (lambda: built(GradientPenalty(), X), adam, (X, Y)),
    "dqn": (lambda: built(DQN(), X), adam, (X, Y)),
    "ocr": (reader, adam, (IMAGES,)),
}
